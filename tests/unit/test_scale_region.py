"""Who is in a simulated region, what its hosts hold, and which sizes are measured."""

from dataclasses import replace

import pytest

from ondemand.codec import decode_record
from ondemand.records import Neighbor, Port, SecurityRule
from scale.goal import Changes, goal_bytes, slices_of
from scale.region import SHARD, Region, neighbor, neighbor_ip, shard_slice, tunnel_ip
from scale.settings import Settings, hosts_that_fit

REGION = Region(hosts=30, ports_per_host=3, neighbors=5000, rules=4)


def test_equal_sizes_and_seeds_give_equal_regions():
    same = replace(REGION)
    assert all(REGION.held_neighbors(h) == same.held_neighbors(h) for h in range(REGION.hosts))
    other = replace(REGION, seed=2)
    assert any(REGION.held_neighbors(h) != other.held_neighbors(h) for h in range(REGION.hosts))


def test_a_host_uses_some_records_of_some_shards():
    for host in range(REGION.hosts):
        held = REGION.held_neighbors(host)
        assert len(held) == REGION.shards
        for shard, numbers in held.items():
            assert len(set(numbers)) == REGION.records
            assert set(numbers) <= set(REGION.members(shard))


def test_a_shard_in_use_has_about_as_many_followers_as_wanted():
    region = Region(hosts=1000, neighbors=1_000_000, followers=10)
    counts = [len(hosts) for hosts in region.followers_of.values()]
    assert sum(counts) == 1000 * region.shards
    assert 8 <= sum(counts) / len(counts) <= 12


def test_a_vpc_of_less_than_a_shard_is_one_shard():
    region = Region(hosts=5, neighbors=3)
    assert region.all_shards == region.used_shards == 1
    assert {tuple(region.held_neighbors(host)) for host in range(5)} == {(0,)}


def test_everything_is_everything():
    region = replace(REGION, everything=True)
    held = [n for numbers in region.held_neighbors(7).values() for n in numbers]
    assert held == list(range(region.neighbors))


@pytest.mark.parametrize(
    "wrong",
    [{"hosts": 0}, {"neighbors": 0}, {"neighbors": 1 << 24}, {"hosts": 1 << 20}, {"records": 300}],
)
def test_a_region_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="is not in 1"):
        replace(REGION, **{"ports_per_host": 20, **wrong}).check()
    REGION.check()


def test_all_records_are_sound_and_in_their_slices():
    kinds = set()
    slices = dict(slices_of(REGION))
    for name, records in slices.items():
        kinds.update(type(decode_record(name, key, data)) for key, data in records.items())
    assert kinds >= {Neighbor, Port, SecurityRule}
    assert sum(len(slices[shard_slice(n)]) for n in range(REGION.all_shards)) == REGION.neighbors
    assert set(slices[shard_slice(1)]) == {
        neighbor(REGION, number).key for number in range(SHARD, 2 * SHARD)
    }
    for host in range(REGION.hosts):
        assert set(REGION.whole_slices(host)) <= set(slices)


def test_slices_in_use_are_those_that_somebody_holds():
    slices = dict(slices_of(REGION, in_use_only=True))
    held = {shard_slice(shard) for h in range(REGION.hosts) for shard in REGION.held_neighbors(h)}
    assert {name for name in slices if name.startswith("nbr/")} == held
    assert not any(name.startswith("nbr/") for name, _ in slices_of(REGION, neighbors=False))


def test_a_simulated_port_is_the_neighbor_of_its_number():
    slices = dict(slices_of(REGION))
    found = decode_record("host/h4", "port/h4-p2", slices["host/h4"]["port/h4-p2"])
    other = neighbor(REGION, 4 * 3 + 2)
    assert (found.mac, found.fixed_ips, found.id) == (other.mac, (other.ip,), other.port)
    assert other.host == tunnel_ip(4)


@pytest.mark.parametrize("hosts", [1, 20, 30])
@pytest.mark.parametrize("kind", ["group", "port", "move"])
def test_changes_change_what_is_there_and_differ(kind, hosts):
    region = replace(REGION, hosts=hosts)
    slices = dict(slices_of(region))
    changes = Changes(region)
    made = [changes.make(kind) for _ in range(50)]
    assert len({(one.slice, one.key, one.payload) for one in made}) == 50
    for one in made:
        decode_record(one.slice, one.key, one.payload)
        assert slices[one.slice][one.key] != one.payload
        holders = {
            host
            for host in range(hosts)
            if one.slice in region.whole_slices(host)
            or one.slice in map(shard_slice, region.held_neighbors(host))
        }
        assert set(one.hosts) == holders
        assert len(holders) == {"group": hosts, "port": 1}.get(kind, len(holders)) > 0


def test_a_moved_neighbor_is_held_by_somebody():
    change = Changes(REGION).make("move")
    held = {
        neighbor_ip(number)
        for host in change.hosts
        for numbers in REGION.held_neighbors(host).values()
        for number in numbers
    }
    assert decode_record(change.slice, change.key, change.payload).ip in held


def test_goal_bytes_count_what_is_held():
    sizes = {name: sum(len(k) + len(p) for k, p in r.items()) for name, r in slices_of(REGION)}
    whole = sum(sizes[name] for name in REGION.whole_slices(0))
    everything = goal_bytes(replace(REGION, everything=True), 0, sizes)
    assert everything == whole + sum(sizes[shard_slice(n)] for n in range(REGION.all_shards))
    used = goal_bytes(REGION, 0, sizes) - whole
    assert 0 < used < (everything - whole) / 100


# Sizes ----------------------------------------------------------------------------------------------


def test_the_numbers_of_hosts_grow_up_to_the_one_that_was_asked_for():
    assert Settings(hosts=10_000).host_counts() == (100, 300, 1000, 3000, 10_000)
    assert Settings(hosts=2000).host_counts() == (100, 300, 1000, 2000)
    assert Settings(hosts=50).host_counts() == (50,)
    assert Settings(hosts=300, quick=True).host_counts() == (30, 100, 300)
    assert Settings(at=(70, 7, 70)).host_counts() == (7, 70)


@pytest.mark.parametrize("goal", Settings().goal_sizes())
def test_a_goal_region_has_about_the_size_that_it_is_for(goal):
    region = Settings().goal_region(goal, everything=True)
    region.check()
    sizes = {name: sum(len(k) + len(p) for k, p in r.items()) for name, r in slices_of(region)}
    assert goal / 2 < goal_bytes(region, 0, sizes) < goal * 2
    few = Settings().goal_region(goal, everything=False)
    assert (few.neighbors, few.hosts) == (region.neighbors, region.hosts)


def test_what_does_not_fit_is_left_out_and_the_reason_is_said():
    counts = (100, 1000, 10_000)
    room = {"drivers": 2, "file_limit": 20_000, "free_bytes": 10**10, "host_bytes": 10**6}
    assert hosts_that_fit(counts, **room) == ((100, 1000, 10_000), "")
    fitting, why = hosts_that_fit(counts, **room | {"file_limit": 1300})
    assert fitting == (100, 1000)
    assert "1,300 files" in why
    fitting, why = hosts_that_fit(counts, **room | {"free_bytes": 10**9 // 2})
    assert fitting == (100,)
    assert "0.5 GB" in why
    assert hosts_that_fit(counts, **room | {"file_limit": 256})[0] == ()

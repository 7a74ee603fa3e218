"""Installation: what it changes in os-ken, and that it changes it back."""

import socket
import ssl

import os_ken.base.app_manager  # noqa: F401 - os_ken.controller.controller needs it first
import pytest
from os_ken.controller import controller
from os_ken.lib import hub

from controller_app.hot_listener import HotConnectionError, install
from tests.support.recording_owner import RecordingOwner

STOCK_FACTORY = controller.datapath_connection_factory
STOCK_DATAPATH = controller.Datapath


def test_only_the_factory_is_changed_and_changed_back():
    with install(RecordingOwner()):
        assert controller.datapath_connection_factory is not STOCK_FACTORY
        assert controller.Datapath is STOCK_DATAPATH
    assert controller.datapath_connection_factory is STOCK_FACTORY
    with pytest.raises(KeyError), install(RecordingOwner()):
        raise KeyError
    assert controller.datapath_connection_factory is STOCK_FACTORY


def test_two_installations_at_once_are_refused():
    with install(RecordingOwner()) as installation:
        inside = controller.datapath_connection_factory
        with pytest.raises(HotConnectionError, match="uninstall"):
            install(RecordingOwner())
        assert controller.datapath_connection_factory is inside
        installation.uninstall()
        installation.uninstall()
        assert controller.datapath_connection_factory is STOCK_FACTORY


def test_another_hub_than_native_threads_is_refused(monkeypatch):
    monkeypatch.setattr(hub, "HUB_TYPE", "eventlet")
    with pytest.raises(HotConnectionError, match="OSKEN_HUB_TYPE=native"):
        install(RecordingOwner())
    assert controller.datapath_connection_factory is STOCK_FACTORY


def test_a_tls_connection_is_left_to_os_ken(monkeypatch, caplog):
    served = []
    with install(RecordingOwner()) as installation, monkeypatch.context() as patch:
        patch.setattr(installation, "_former", lambda *arguments: served.append(arguments))
        ours, theirs = socket.socketpair()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with (
            theirs,
            context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False) as tls,
        ):
            controller.datapath_connection_factory(tls, ("192.0.2.1", 1))
            assert served == [(tls, ("192.0.2.1", 1))]
    assert "TLS" in caplog.text
    assert controller.datapath_connection_factory is STOCK_FACTORY

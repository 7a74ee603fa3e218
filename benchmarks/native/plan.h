/* The plan of a run: which new flows are offered, and what the store says about their targets.
 * flow_plan.py writes it. Numbers are little-endian, addresses in network order. */
#ifndef PLAN_H
#define PLAN_H

#include "openflow.h"

#define PLAN_MAGIC 0x314e4c50u /* "PLN1" */

struct __attribute__((packed)) plan_head {
    uint32_t magic, ports, neighbors, flows;
    uint8_t gateway_mac[6];
    uint8_t padding[2];
};

struct __attribute__((packed)) plan_port {
    uint32_t ofport, ip;
    uint8_t mac[6];
    uint8_t padding[2];
};

struct __attribute__((packed)) plan_neighbor {
    uint32_t ip, host;
    uint8_t mac[6];
    uint8_t padding[2];
};

struct __attribute__((packed)) plan_flow {
    uint32_t neighbor;
    uint16_t port, source_port, target_port, padding;
};

struct plan {
    struct plan_head head;
    struct plan_port *ports;
    struct plan_neighbor *neighbors;
    struct plan_flow *flows;
};

static inline void plan_part(FILE *file, void *to, size_t size, size_t count)
{
    if (fread(to, size, count, file) != count)
        die("the plan is cut short");
}

static inline void plan_read(struct plan *plan, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        die("%s: %s", path, strerror(errno));
    plan_part(file, &plan->head, sizeof plan->head, 1);
    const struct plan_head *head = &plan->head;
    if (head->magic != PLAN_MAGIC || !head->ports || !head->neighbors || !head->flows)
        die("%s is no plan", path);
    plan->ports = allocate(head->ports, sizeof *plan->ports);
    plan->neighbors = allocate(head->neighbors, sizeof *plan->neighbors);
    plan->flows = allocate(head->flows, sizeof *plan->flows);
    plan_part(file, plan->ports, sizeof *plan->ports, head->ports);
    plan_part(file, plan->neighbors, sizeof *plan->neighbors, head->neighbors);
    plan_part(file, plan->flows, sizeof *plan->flows, head->flows);
    fclose(file);
    for (uint32_t i = 0; i < head->flows; i++)
        if (plan->flows[i].neighbor >= head->neighbors || plan->flows[i].port >= head->ports)
            die("%s: flow %u refers to nothing", path, i);
}

#endif

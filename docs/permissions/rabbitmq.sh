#!/bin/sh
# Grants the rights that the worker's user needs at RabbitMQ, and no others. Create the user first:
#
#   rabbitmqctl add_user payout_links_worker '…'
#   docs/permissions/rabbitmq.sh payout_links_worker [VHOST]
#
# With `operator` as the third argument, the user may also read dead letters and unrouted results and publish jobs.
# `payout-link-worker dead-letters` and `submit` need that.
#
# With `retention`, the worker's user may also read dead letters. `retention.dead_letters_days` needs that.
#
# The names are the defaults of [broker.names]. If yours differ, change them here. Upstream systems need the write right on
# payout_links. Consumers of results need the read right on payout_links.results.
set -eu

user=$1
vhost=${2:-/}
# The worker declares its exchanges and queues at every connect.
configure='^payout_links(\.(create(\.dead)?|cancel|status|results(\.unrouted)?|dead|unrouted))?$'
# It binds the queues, and publishes results, dead letters and (by the default exchange) replies. It publishes no jobs.
write='^(payout_links\.(create(\.dead)?|cancel|status|results(\.unrouted)?|dead|unrouted)|amq\.default)$'
# It reads only jobs and messages about links, no dead letters and no results. (A binding reads the exchange.)
read='^payout_links(\.(create|cancel|status|dead|unrouted))?$'
if [ "${3:-worker}" = operator ]; then
    write='^(payout_links(\.(create(\.dead)?|cancel|status|results(\.unrouted)?|dead|unrouted))?|amq\.default)$'
    read='^payout_links(\.(create(\.dead)?|cancel|status|results\.unrouted|dead|unrouted))?$'
fi
if [ "${3:-worker}" = retention ]; then
    read='^payout_links(\.(create(\.dead)?|cancel|status|dead|unrouted))?$'
fi

${RABBITMQCTL:-rabbitmqctl} set_permissions -p "$vhost" "$user" "$configure" "$write" "$read"

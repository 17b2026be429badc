#!/bin/sh
# What the worker's user may do at RabbitMQ, and no more. The user itself is yours to make:
#
#   rabbitmqctl add_user payout_links_worker '…'
#   docs/permissions/rabbitmq.sh payout_links_worker [VHOST]
#
# With `operator` as the third argument, the user may also read dead letters and unrouted results and publish jobs: for
# `payout-link-worker dead-letters` and `submit`.
#
# With `retention`, the worker's user may also read dead letters: for `retention.dead_letters_days`.
#
# The names are those of [broker.names]; where yours are others, change them here. Upstream systems need write on
# payout_links, consumers of results need read on payout_links.results.
set -eu

user=$1
vhost=${2:-/}
# It declares its exchanges and queues at every connect,
configure='^payout_links(\.(create(\.dead)?|cancel|status|results(\.unrouted)?|dead|unrouted))?$'
# binds the queues, publishes results, dead letters and, by the default exchange, replies, but no jobs,
write='^(payout_links\.(create(\.dead)?|cancel|status|results(\.unrouted)?|dead|unrouted)|amq\.default)$'
# and reads jobs and messages about links alone: neither dead letters nor results. (A binding reads the exchange.)
read='^payout_links(\.(create|cancel|status|dead|unrouted))?$'
if [ "${3:-worker}" = operator ]; then
    write='^(payout_links(\.(create(\.dead)?|cancel|status|results(\.unrouted)?|dead|unrouted))?|amq\.default)$'
    read='^payout_links(\.(create(\.dead)?|cancel|status|results\.unrouted|dead|unrouted))?$'
fi
if [ "${3:-worker}" = retention ]; then
    read='^payout_links(\.(create(\.dead)?|cancel|status|dead|unrouted))?$'
fi

${RABBITMQCTL:-rabbitmqctl} set_permissions -p "$vhost" "$user" "$configure" "$write" "$read"

#!/bin/sh
# `make mutants`: deliberate bugs, each of which a test must catch. WHAT="words" chooses by name.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/desk.sh
# shellcheck disable=SC2086  # a list of words
"$host" test -q --test mutants -- ${WHAT:-}

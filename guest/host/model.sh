#!/bin/sh
# `make model`: random guests and verbs on the adversarial hardware model, for as long as asked. docs/stage2.md says how to
# read a failure.
#
#   SEED=n     where it begins (another one each time, told)
#   STEPS=n    actions in all (1000000)
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
SEED=${SEED:-$(date +%s)} STEPS=${STEPS:-1000000}
is_number "$SEED" || refuse "SEED=$SEED: must be a number"
is_number "$STEPS" && [ "$STEPS" -gt 0 ] || refuse "STEPS=$STEPS: must be a number above 0"
. guest/host/desk.sh

say build "the library's tests"
"$host" test -q --lib --no-run
say model "$STEPS steps from seed $SEED on"
test=machine::tests::model::tests::nothing_that_hardware_may_do_breaks_an_invariant
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
if FAULTLINE_MODEL_SEED=$SEED FAULTLINE_MODEL_STEPS=$STEPS RUST_BACKTRACE=0 \
    "$host" test -q --lib -- --exact "$test" >"$log"; then
    # A test that was renamed would pass by not being there.
    grep -q '^test result: ok. 1 passed' "$log" || refuse "model: there is no test $test"
    say model "$STEPS steps, no invariant was broken"
else
    sed -n '/panicked at/,/^To see it again/p' "$log"
    exit 1
fi

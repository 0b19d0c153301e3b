#!/usr/bin/env bash
# Makes the encrypted files of examples/hello again, with the real sops and the test key in examples/keys.
# Run it after `e2e/tools/get sops`; the files that it writes are committed.
set -euo pipefail
cd "$(dirname "$0")"
sops=$(../e2e/tools/get --which sops)
recipient=$(sed -n 's/^# public key: //p' keys/test-only.agekey)

encrypt() { # file, text on standard input
    SOPS_DISABLE_VERSION_CHECK=1 "$sops" encrypt --age "$recipient" --filename-override "$1" --output "$1" /dev/stdin
}

encrypt hello/secrets/database.yaml <<'YAML'
# The database of the example.
database:
    user: STRONGROOM-MARKER-database-user
    password: STRONGROOM-MARKER-database-password
YAML

encrypt hello/secrets/mail.yaml <<'YAML'
mail:
    password: STRONGROOM-MARKER-mail-password
YAML

encrypt hello/secrets/session.yaml <<'YAML'
session:
    key: STRONGROOM-MARKER-session-key
YAML

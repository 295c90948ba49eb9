#!/usr/bin/env bash
# Installs ministack, a second stand-in for AWS: Secrets Manager, STS and the metadata service of a machine.
#
#   tests/peers/install-ministack.sh     prints its folder on stdout (bin/ministack); anything else goes to stderr
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/install-moto.sh" ministack

#!/usr/bin/env bash
# Chromium and its driver from Debian's packages, for the tests of the report: needs root and apt.
set -euo pipefail
command -v chromium > /dev/null && command -v chromedriver > /dev/null && exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium chromium-driver > /dev/null

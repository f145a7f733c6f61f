# Fetches Go modules in a container of its own and as an ordinary user.
#
# A tar archive comes by stdin: `env/` holds a file with the value of each variable, and `files/` holds the files that
# name the modules. The fetched modules go out by stdout as a tar archive, and messages go to stderr.
set -eu
mkdir -p /tmp/given/files /tmp/modules
tar -x -C /tmp/given
for file in /tmp/given/env/*; do
  [ -e "$file" ] && export "$(basename "$file")=$(cat "$file")"
done
cd /tmp/given/files
unset GOWORK
export GOMODCACHE=/tmp/modules GOFLAGS=-modcacherw GOCACHE=/tmp/cache GOENV=off GOTOOLCHAIN=local
go version >&2
if ! go mod download >&2; then exit 1; fi
mkdir -p /tmp/modules/cache/download
cd /tmp/modules
tar -c --format=gnu --exclude='*.lock' --exclude='cache/download/sumdb' cache/download

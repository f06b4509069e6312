# Every third-party library becomes one quipu::<name> interface target; a missing one names its package.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# quipu_pkg(<name> <pkg-config module> <Debian package>)
function(quipu_pkg name module package)
  pkg_check_modules(PC_${name} IMPORTED_TARGET ${module})
  if(NOT PC_${name}_FOUND)
    message(FATAL_ERROR "Quipu needs ${module}: install ${package} (Debian) or load its module; "
                        "tools/setup installs everything on Debian.")
  endif()
  add_library(quipu_third_${name} INTERFACE)
  target_link_libraries(quipu_third_${name} INTERFACE PkgConfig::PC_${name})
  add_library(quipu::${name} ALIAS quipu_third_${name})
endfunction()

quipu_pkg(hdf5 hdf5-openmpi libhdf5-openmpi-dev)
quipu_pkg(hwloc hwloc libhwloc-dev)
quipu_pkg(libconfig libconfig libconfig-dev)
quipu_pkg(jansson jansson libjansson-dev)
quipu_pkg(libxml2 libxml-2.0 libxml2-dev)
quipu_pkg(sentencepiece sentencepiece libsentencepiece-dev)
quipu_pkg(pcre2 libpcre2-8 libpcre2-dev)
quipu_pkg(utf8proc libutf8proc libutf8proc-dev)
quipu_pkg(xxhash libxxhash libxxhash-dev)
quipu_pkg(zlib zlib zlib1g-dev)

find_package(MPI 3 REQUIRED COMPONENTS C)
add_library(quipu_third_mpi INTERFACE)
target_link_libraries(quipu_third_mpi INTERFACE MPI::MPI_C)
add_library(quipu::mpi ALIAS quipu_third_mpi)

find_package(OpenMP REQUIRED COMPONENTS C)
add_library(quipu_third_openmp INTERFACE)
target_link_libraries(quipu_third_openmp INTERFACE OpenMP::OpenMP_C)
add_library(quipu::openmp ALIAS quipu_third_openmp)

# Found by file: Debian's CMake package of oneDNN insists on OpenCL headers, which we do not need.
find_path(DNNL_INCLUDE oneapi/dnnl/dnnl.h REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(quipu_third_dnnl INTERFACE)
target_include_directories(quipu_third_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE})
target_link_libraries(quipu_third_dnnl INTERFACE ${DNNL_LIBRARY})
add_library(quipu::dnnl ALIAS quipu_third_dnnl)

find_path(RANDOM123_INCLUDE Random123/philox.h REQUIRED)

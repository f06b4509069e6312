# The backend in cuda/: OFF, ON (nvcc) or EMULATED: its sources on the CPU, on the executor of
# tests/cuda_on_cpu/, for machines without a GPU.
set(QUIPU_CUDA OFF CACHE STRING "Build the CUDA backend: OFF, ON or EMULATED")
set_property(CACHE QUIPU_CUDA PROPERTY STRINGS OFF ON EMULATED)
option(QUIPU_CUDA_CHECK "EMULATED: watch every access of every kernel (slow)" OFF)
if(QUIPU_CUDA AND NOT QUIPU_CUDA STREQUAL EMULATED)
  set(QUIPU_CUDA_ARCHITECTURES 80 86 89 90 100 120 CACHE STRING "GPUs that kernels are compiled for")
  # Kernels are the same for all: the first half of a compilation is done once, and kept as PTX for
  # what comes after the last of them.
  string(REGEX REPLACE "([0-9]+[af]?)" "sm_\\1" codes "${QUIPU_CUDA_ARCHITECTURES}")
  string(REPLACE ";" "," codes "${codes}")
  set(QUIPU_CUDA_CODES "--generate-code=arch=compute_80,code=[compute_80,${codes}]")
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  enable_language(CUDA)
  find_package(CUDAToolkit 12 REQUIRED)
endif()

# quipu_cuda(cuda ROOMS folders... DEPENDS modules...): as quipu_module(), of the folder cuda/.
function(quipu_cuda name)
  cmake_parse_arguments(M "" "" "ROOMS;DEPENDS" ${ARGN})
  if(NOT QUIPU_CUDA)
    return()
  endif()
  file(GLOB_RECURSE cuda_c CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cuda/*.c)
  file(GLOB_RECURSE cuda_cu CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cuda/*.cu)
  add_library(quipu_cuda STATIC ${cuda_c} ${cuda_cu})
  set(view ${CMAKE_BINARY_DIR}/include/cuda_module)
  file(MAKE_DIRECTORY ${view})
  foreach(dep ${M_DEPENDS})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/src/${dep} ${view}/${dep} SYMBOLIC)
  endforeach()
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/cuda ${view}/cuda SYMBOLIC)
  target_include_directories(quipu_cuda PRIVATE ${view})
  target_include_directories(quipu_cuda SYSTEM PRIVATE ${RANDOM123_INCLUDE})
  target_compile_definitions(quipu_cuda PRIVATE _GNU_SOURCE)
  target_link_libraries(quipu_cuda PUBLIC quipu_base quipu_comm PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  target_compile_definitions(quipu_compute PRIVATE QUIPU_HAS_CUDA)
  # They call each other: the registry opens the backend, which is a backend of the op table.
  target_link_libraries(quipu_compute PRIVATE quipu_cuda)

  if(QUIPU_CUDA STREQUAL EMULATED)
    set(executor ${CMAKE_SOURCE_DIR}/tests/cuda_on_cpu)
    file(GLOB executor_sources CONFIGURE_DEPENDS ${executor}/*.cc)
    add_library(cuda_on_cpu SHARED ${executor_sources})
    target_include_directories(cuda_on_cpu PUBLIC ${executor} ${executor}/include)
    target_link_libraries(cuda_on_cpu PRIVATE Threads::Threads quipu::mpi)
    target_compile_options(cuda_on_cpu PRIVATE -Wall -Wextra -Werror)
    target_compile_definitions(cuda_on_cpu PRIVATE OMPI_SKIP_MPICXX) # MPI is called as from C
    set_source_files_properties(${cuda_cu} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
    target_link_libraries(quipu_cuda PRIVATE cuda_on_cpu)
    target_compile_definitions(quipu_cuda PRIVATE QP_CUBLASLT_SONAME="$<TARGET_FILE_NAME:cuda_on_cpu>"
                                                  QP_NCCL_SONAME="$<TARGET_FILE_NAME:cuda_on_cpu>")
    target_compile_options(quipu_cuda PRIVATE $<$<COMPILE_LANGUAGE:C>:${QUIPU_C_WARNINGS}>
      $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Werror;-Wno-missing-field-initializers;-Wno-unknown-pragmas;-ffp-contract=off>)
    if(QUIPU_CUDA_CHECK)
      target_compile_definitions(cuda_on_cpu PRIVATE CUDA_ON_CPU_CHECK)
      # no runtime of the sanitizer is linked: the executor has its own hooks
      set_property(SOURCE ${cuda_cu} APPEND PROPERTY COMPILE_OPTIONS "-fsanitize=thread")
    endif()
  else()
    set_target_properties(quipu_cuda PROPERTIES CUDA_ARCHITECTURES OFF CUDA_STANDARD 17)
    target_link_libraries(quipu_cuda PRIVATE CUDA::cudart_static)
    target_include_directories(quipu_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    target_compile_options(quipu_cuda PRIVATE $<$<COMPILE_LANGUAGE:C>:${QUIPU_C_WARNINGS}>
      $<$<COMPILE_LANGUAGE:CUDA>:${QUIPU_CUDA_CODES};-fmad=false;-Werror=all-warnings;-Xcompiler=-Wall>)
  endif()
endfunction()

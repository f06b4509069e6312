set(QUIPU_WARNINGS -Wall -Wextra -Wshadow -Wconversion -Wvla -Werror)
set(QUIPU_C_WARNINGS ${QUIPU_WARNINGS} -Wstrict-prototypes)

function(quipu_flags target)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:${QUIPU_C_WARNINGS}>
                                           $<$<COMPILE_LANGUAGE:CXX>:${QUIPU_WARNINGS}>)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
  if(QUIPU_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link,address,undefined -g)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
  if(QUIPU_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()

# quipu_module(<name> [ROOMS folders...] [DEPENDS modules...] [THIRD libraries...]): all sources of
# src/<name>. Rooms are its sub-folders; each stands on those before it (tools/check-layers).
function(quipu_module name)
  cmake_parse_arguments(M "" "" "ROOMS;DEPENDS;THIRD" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.c
                                              ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  add_library(quipu_${name} STATIC ${sources})
  # Headers are included as "<module>/<file>.h"; each module sees only what it depends on, because
  # its include folder holds one link per visible module.
  set(view ${CMAKE_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${view})
  foreach(dep ${name} ${M_DEPENDS})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/src/${dep} ${view}/${dep} SYMBOLIC)
  endforeach()
  target_include_directories(quipu_${name} PRIVATE ${view})
  target_include_directories(quipu_${name} SYSTEM PRIVATE ${RANDOM123_INCLUDE})
  list(TRANSFORM M_DEPENDS PREPEND quipu_)
  target_link_libraries(quipu_${name} PUBLIC ${M_DEPENDS} PRIVATE ${M_THIRD} m Threads::Threads)
  quipu_flags(quipu_${name})
endfunction()

add_custom_target(programs) # all programs without the tests: what tools/quickstart builds

# quipu_program(<name> <folder> DEPENDS modules... [THIRD libraries...])
function(quipu_program name folder)
  cmake_parse_arguments(P "" "" "DEPENDS;SOURCES;THIRD" ${ARGN})
  if(NOT P_SOURCES)
    file(GLOB P_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.c)
  endif()
  add_executable(${name} ${P_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  list(TRANSFORM P_DEPENDS PREPEND quipu_)
  target_link_libraries(${name} PRIVATE ${P_DEPENDS} ${P_THIRD} quipu::mpi quipu::hdf5 quipu::jansson m)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  quipu_flags(${name})
  install(TARGETS ${name} RUNTIME DESTINATION bin)
  add_dependencies(programs ${name})
endfunction()

# quipu_tools(<folder>): every quipu-*.c is a program, linked with the sources of quipu-*/ if present.
function(quipu_tools folder)
  file(GLOB mains CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/quipu-*.c)
  foreach(main ${mains})
    get_filename_component(name ${main} NAME_WE)
    file(GLOB parts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/${name}/*.c)
    quipu_program(${name} ${folder} SOURCES ${main} ${parts} DEPENDS train import markdown THIRD quipu::libxml2)
  endforeach()
endfunction()

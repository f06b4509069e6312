# The revision of the tree as it is when it is built, not when it was configured: a target asks Git each
# time, and writes a header only where the answer is another one, so that a commit compiles one file. A tree
# that came as an archive has the answer in cmake/exported_revision.h: git archive and CPack have written it.
if(CMAKE_SCRIPT_MODE_FILE) # what the target runs: SOURCE is the tree, HEADER what to write
  cmake_minimum_required(VERSION 3.25)
  set(revision unknown)
  set(exported "")
  if(EXISTS ${SOURCE}/cmake/exported_revision.h)
    file(STRINGS ${SOURCE}/cmake/exported_revision.h exported LIMIT_COUNT 1)
  endif()
  find_package(Git QUIET)
  if(exported MATCHES "\"([^\"$]+)\"")
    set(revision ${CMAKE_MATCH_1})
  elseif(Git_FOUND)
    # not that of another repository around this tree
    get_filename_component(above ${SOURCE} DIRECTORY)
    set(ENV{GIT_CEILING_DIRECTORIES} ${above})
    execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty WORKING_DIRECTORY ${SOURCE}
                    OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(NOT failed)
      set(revision ${described})
    endif()
  endif()
  file(CONFIGURE OUTPUT ${HEADER} CONTENT "#define QUIPU_REVISION \"@revision@\"\n" @ONLY)
  return()
endif()

# quipu_revision(<target> <source>): this source of the target, alone, may include "revision.h".
function(quipu_revision target source)
  set(folder ${CMAKE_BINARY_DIR}/revision)
  add_custom_target(${target}_revision BYPRODUCTS ${folder}/revision.h
                    COMMAND ${CMAKE_COMMAND} -D SOURCE=${CMAKE_SOURCE_DIR} -D HEADER=${folder}/revision.h
                            -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
                    COMMENT "" VERBATIM)
  add_dependencies(${target} ${target}_revision)
  set_property(SOURCE ${source} APPEND PROPERTY INCLUDE_DIRECTORIES ${folder})
  set_property(SOURCE ${source} APPEND PROPERTY OBJECT_DEPENDS ${folder}/revision.h)
endfunction()

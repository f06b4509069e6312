# Run by CPack on the files that it is about to pack. A tarball of the tree has no Git: it is told its revision.
if(CPACK_INSTALLED_DIRECTORIES) # the tree; an installation has none
  list(GET CPACK_INSTALLED_DIRECTORIES 0 source)
  execute_process(COMMAND ${CMAKE_COMMAND} -D SOURCE=${source} -D HEADER=${CPACK_TEMPORARY_DIRECTORY}/cmake/exported_revision.h
                          -P ${CMAKE_CURRENT_LIST_DIR}/revision.cmake COMMAND_ERROR_IS_FATAL ANY)
endif()

# The CMake targets that the ROS 2 wheels export name the Python and numpy headers of the machine that built them.
# Set-up includes this file at the end of project() and the rewrite runs once every target is known, so that e0_msgs'
# own CMakeLists.txt stays the standard one.
function(e0_fix_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target ${targets})
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(folders)
      string(REGEX REPLACE "/opt/python/[^;]*/include/python3\\.[0-9]+" "${E0_PYTHON_INCLUDE}" folders "${folders}")
      string(REGEX REPLACE "/opt/python/[^;]*numpy/_?core/include" "${E0_NUMPY_INCLUDE}" folders "${folders}")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${folders}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL e0_fix_includes)

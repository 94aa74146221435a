"""Pure logic: no ROS, no wall clock. Time comes in as integer nanoseconds."""

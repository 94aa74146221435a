"""E0: a vision-language-action policy by Tweedie discrete diffusion. Free of ROS."""

"""From what was read to what is done: five pure steps and `decide`, which runs them."""

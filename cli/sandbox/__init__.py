"""Labs in network namespaces of this computer: `./lab sandbox`, `./lab demo`, and which lab a command means."""

//! Runs tasks: channels, partitioners, chains, the threaded and the simulated executor.

//! Nothing but dependencies: what is built for the demo has the features that the whole workspace
//! resolves, so that `make test` uses it again. `dev/feature-pins/check` tells when that is no
//! longer so.

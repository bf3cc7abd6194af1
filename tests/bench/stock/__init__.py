"""The reference: Debian's own docker.io in a VM of the same size, without anything that would slow it down."""

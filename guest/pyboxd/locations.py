"""Where things are in the guest. No other module writes these paths out."""

CODE = "/run/pyboxd/code"  # guest code, from the second cpio behind the initrd
RUN = "/run/pyboxd"  # tmpfs: state that ends with the machine
SHARES = "/run/pyboxd/shares"  # the FUSE mount; one entry per shared folder
NETNS = "/run/pyboxd/netns"  # bind mounts of network namespaces
CONTAINER_RUN = "/run/pyboxd/containers"  # per container: monitor socket, exit status
API_SOCKET = "/run/docker.sock"
DATA = "/var/lib/pyboxd"  # the data disk (ext4)
DATABASE = "/var/lib/pyboxd/engine.db"
LAYERS = "/var/lib/pyboxd/layers"
CONTAINERS = "/var/lib/pyboxd/containers"  # per container: upper, work, log, managed files
VOLUMES = "/var/lib/pyboxd/volumes"
TEMPORARY = "/var/lib/pyboxd/tmp"  # emptied at every engine start
CGROUP = "/sys/fs/cgroup"
PORTS = "/dev/virtio-ports"
CONTROL_PORT = "org.pybox.control"
FUSE_PORT = "org.pybox.fuse"
BULK_PORT = "org.pybox.bulk"

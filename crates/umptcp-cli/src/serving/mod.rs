//! What services have in common that hand connections between the stack and the kernel: the daemon's, and the
//! proxy.

pub(crate) mod bridge;
mod descriptors;
pub(crate) mod proxy_protocol;
pub(crate) mod publish;
pub(crate) mod served;
pub(crate) mod service;
pub(crate) mod tasks;

pub(crate) use descriptors::raise_descriptor_limit;

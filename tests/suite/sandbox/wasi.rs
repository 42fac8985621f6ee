//! Parts of WASI 0.2 for guests in text: as much of each package as a guest needs.

use crate::support::wat::Wat;

const IO: &str = "package wasi:io@0.2.0;
interface error { resource error; }
interface poll { resource pollable { block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream { write: func(contents: list<u8>) -> result<_, stream-error>; }
}";
const CLOCKS: &str = "package wasi:clocks@0.2.0;
interface monotonic-clock { use wasi:io/poll@0.2.0.{pollable}; type duration = u64; subscribe-duration: func(when: duration) -> pollable; }";
const RANDOM: &str = "package wasi:random@0.2.0; interface random { get-random-bytes: func(len: u64) -> list<u8>; }";
const CLI: &str = "package wasi:cli@0.2.0;
interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
interface environment { get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; }
interface exit { exit: func(status: result); }";
const FILESYSTEM: &str = "package wasi:filesystem@0.2.0;
interface types { resource descriptor; }
interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }";
const SOCKETS: &str = "package wasi:sockets@0.2.0;
interface network {
    resource network;
    enum error-code {
        unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict, not-in-progress, would-block, invalid-state,
        new-socket-limit, address-not-bindable, address-in-use, remote-unreachable, connection-refused, connection-reset, connection-aborted,
        datagram-too-large, name-unresolvable, temporary-resolver-failure, permanent-resolver-failure,
    }
    enum ip-address-family { ipv4, ipv6 }
}
interface instance-network { use network.{network}; instance-network: func() -> network; }
interface ip-name-lookup {
    use network.{network, error-code};
    resource resolve-address-stream;
    resolve-addresses: func(network: borrow<network>, name: string) -> result<resolve-address-stream, error-code>;
}
interface tcp { resource tcp-socket; }
interface tcp-create-socket {
    use network.{error-code, ip-address-family};
    use tcp.{tcp-socket};
    create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
}
interface udp { resource udp-socket; }
interface udp-create-socket {
    use network.{error-code, ip-address-family};
    use udp.{udp-socket};
    create-udp-socket: func(address-family: ip-address-family) -> result<udp-socket, error-code>;
}";

/// A batch processor that may import these interfaces of WASI.
pub fn guest(interfaces: &[&str]) -> Wat {
    let with_packages = [IO, CLOCKS, RANDOM, CLI, FILESYSTEM, SOCKETS].into_iter().fold(Wat::batch(), Wat::package);
    interfaces.iter().fold(with_packages, |wat, interface| wat.world(&format!("import {interface}@0.2.0; ")))
}

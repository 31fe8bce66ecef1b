//! Ten thousand streams at once, on two threads of tokio.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{pattern, two_stacks};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use umptcp::tokio::{MptcpListener, MptcpStream};

const STREAMS: usize = 10_000;

/// Bytes that each sends; the answer has as many.
const BYTES: usize = 600;

/// Memory that one stream may need: both its ends, in both stacks, with the tasks that serve it. It is about
/// half of this.
const MEMORY: usize = 64_000;

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Resident memory of this process in bytes.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Reads everything, and sends it back.
async fn echo(mut stream: MptcpStream) {
    let (mut from, mut to) = stream.split();
    assert_eq!(tokio::io::copy(&mut from, &mut to).await.unwrap(), BYTES as u64);
    stream.shutdown().await.unwrap();
}

async fn client(mut stream: MptcpStream, number: u64, all: Arc<Barrier>) {
    let data = pattern(BYTES, number);
    let mut answer = [0; BYTES];
    let (first, rest) = data.split_at(BYTES / 3);
    stream.write_all(first).await.unwrap();
    stream.read_exact(&mut answer[..first.len()]).await.unwrap();
    // From here on, all of them are connected, and have data under way.
    all.wait().await;
    for piece in rest.chunks(150) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.shutdown().await.unwrap();
    stream.read_exact(&mut answer[first.len()..]).await.unwrap();
    assert!(answer[..] == data[..], "every byte of stream {number}");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end of stream {number}");
}

#[test]
fn ten_thousand_streams_on_two_threads() {
    let (a, b) = two_stacks(1, |s| s);
    let a = Arc::new(a);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let address: SocketAddr = "10.0.0.2:80".parse().unwrap();
        let builder = umptcp::MptcpListener::builder(&b).backlog(STREAMS);
        let listener = MptcpListener::bind_with(builder, address).await.unwrap();
        let (descriptors, threads, before) = (entries("/proc/self/fd"), entries("/proc/self/task"), memory());
        let server = tokio::spawn(async move {
            let mut echoes = JoinSet::new();
            for _ in 0..STREAMS {
                echoes.spawn(echo(listener.accept().await.unwrap().0));
            }
            echoes.join_all().await;
        });
        let all = Arc::new(Barrier::new(STREAMS + 1));
        let mut clients = JoinSet::new();
        for number in 0..STREAMS as u64 {
            let (a, all) = (a.clone(), all.clone());
            clients.spawn(async move {
                let builder = umptcp::MptcpStream::builder(&a).connect_timeout(Duration::from_secs(300));
                client(MptcpStream::connect_with(builder, address).await.unwrap(), number, all).await;
            });
        }
        all.wait().await;
        assert_eq!(entries("/proc/self/fd"), descriptors, "no descriptor per stream");
        assert!(entries("/proc/self/task") <= threads, "no thread per stream");
        let each = memory().saturating_sub(before) / STREAMS;
        println!("{each} bytes per stream");
        assert!(each < MEMORY, "{each} bytes per stream");
        clients.join_all().await;
        server.await.unwrap();
    });
}

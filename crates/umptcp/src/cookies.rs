//! Fast Open cookies in a file, for programs that make few connections each (RFC 7413 §4.1.3).

use crate::files;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use umptcp_stack_core::stack::FastOpenServer;

/// Maximum number of servers kept: as many as a stack remembers.
const MOST: usize = 1024;
/// Maximum size read: a file with that many lines is far shorter.
const LONGEST: u64 = 1 << 20;

const HEAD: &str = "\
# Fast Open cookies that servers gave this host (RFC 7413), kept by umptcp. Least recently used first. On each line: local address,
# server, its MSS, cookie (- if none), and the time until which Fast Open is not tried again, in seconds since 1970.
";

/// One line of the file: a server.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    local: IpAddr,
    remote: SocketAddr,
    mss: u16,
    cookie: Vec<u8>,
    /// Seconds since 1970.
    left_alone_until: Option<u64>,
}

impl Line {
    fn parse(text: &str) -> Option<Line> {
        let mut words = text.split_whitespace();
        let (local, remote) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mss = words.next()?.parse().ok()?;
        let cookie = match words.next()? {
            "-" => Vec::new(),
            hex => bytes_of(hex)?,
        };
        let left_alone_until = match words.next() {
            Some(seconds) => Some(seconds.parse().ok()?),
            None => None,
        };
        let fits = cookie.is_empty() || FastOpenServer::COOKIE_LENGTHS.contains(&cookie.len());
        (fits && words.next().is_none()).then_some(Line { local, remote, mss, cookie, left_alone_until })
    }

    fn write(&self) -> String {
        let Line { local, remote, mss, cookie, left_alone_until } = self;
        let hex: String = cookie.iter().map(|b| format!("{b:02x}")).collect();
        let cookie = if hex.is_empty() { "-" } else { &hex };
        let until = left_alone_until.map(|until| format!(" {until}")).unwrap_or_default();
        format!("{local} {remote} {mss} {cookie}{until}\n")
    }

    fn of(server: FastOpenServer, now: u64) -> Line {
        let FastOpenServer { local, remote, cookie, mss, left_alone, .. } = server;
        let left_alone_until = left_alone.map(|time| now + time.as_secs());
        Line { local, remote, mss, cookie, left_alone_until }
    }

    fn server(self, now: u64) -> FastOpenServer {
        let Line { local, remote, mss, cookie, left_alone_until } = self;
        let left_alone = left_alone_until.and_then(|until| until.checked_sub(now)).filter(|time| *time > 0);
        FastOpenServer::new(local, remote)
            .with_cookie(cookie, mss)
            .with_left_alone(left_alone.map(Duration::from_secs))
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: &[u8]| u8::from_str_radix(std::str::from_utf8(b).ok()?, 16).ok();
    hex.as_bytes().chunks(2).map(digit).collect()
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[derive(Debug)]
pub(crate) struct CookieFile(PathBuf);

impl CookieFile {
    /// Opens the file, creating it if necessary, and returns its content. Unreadable lines are skipped with a
    /// warning.
    pub(crate) fn open(path: PathBuf) -> io::Result<(CookieFile, Vec<FastOpenServer>)> {
        let file =
            files::with_mode(OpenOptions::new().read(true).append(true).create(true), 0o600).open(&path);
        let lines = file.and_then(|file| read(&file, &path)).map_err(|e| {
            io::Error::new(e.kind(), format!("cannot keep Fast Open cookies in {}: {e}", path.display()))
        })?;
        let now = unix_time();
        Ok((CookieFile(path), lines.into_iter().map(|line| line.server(now)).collect()))
    }

    /// Merges what has changed into the file as it is now: other programs may have written to it since.
    pub(crate) fn save(&self, changed: Vec<FastOpenServer>) -> io::Result<()> {
        if changed.is_empty() {
            return Ok(());
        }
        let now = unix_time();
        let news: Vec<Line> = changed.into_iter().map(|server| Line::of(server, now)).collect();
        let known: HashSet<_> = news.iter().map(|line| (line.local, line.remote)).collect();
        let mut lines = match File::open(&self.0) {
            Ok(file) => read(&file, &self.0)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        lines.retain(|line| !known.contains(&(line.local, line.remote)));
        lines.extend(news);
        lines.drain(..lines.len().saturating_sub(MOST));
        // Nobody ever sees half a file: a new one is written next to it and renamed over it.
        let mut beside = self.0.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let written = write(&beside, &lines).and_then(|()| fs::rename(&beside, &self.0));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn read(file: &File, path: &Path) -> io::Result<Vec<Line>> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for (number, text) in text.lines().enumerate() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match Line::parse(text) {
            Some(line) => lines.push(line),
            None => bad.push(number + 1),
        }
    }
    if let Some(first) = bad.first() {
        let (file, count) = (path.display(), bad.len());
        tracing::warn!(%file, first, count, "ignoring lines that are not Fast Open cookies");
    }
    lines.drain(..lines.len().saturating_sub(MOST));
    Ok(lines)
}

fn write(path: &Path, lines: &[Line]) -> io::Result<()> {
    // Left over by an earlier process with the same id.
    let _ = fs::remove_file(path);
    let mut file = files::with_mode(OpenOptions::new().write(true).create_new(true), 0o600).open(path)?;
    let body: String = lines.iter().map(Line::write).collect();
    file.write_all(format!("{HEAD}{body}").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    fn scratch(name: &str) -> Scratch {
        Scratch::new(&format!("cookies-{name}"))
    }

    fn place(scratch: &Scratch) -> PathBuf {
        scratch.path().join("cookies")
    }

    fn server(n: u32, cookie: &[u8], left_alone: Option<u64>) -> FastOpenServer {
        FastOpenServer::new([10, 0, 0, 1].into(), SocketAddr::from((n.to_be_bytes(), 80)))
            .with_cookie(cookie.to_vec(), 1400)
            .with_left_alone(left_alone.map(Duration::from_secs))
    }

    fn remotes(servers: &[FastOpenServer]) -> Vec<SocketAddr> {
        servers.iter().map(|s| s.remote).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let scratch = scratch("written");
        let (file, known) = CookieFile::open(place(&scratch)).unwrap();
        assert_eq!(known, []);
        let mut six = server(3, &[7; 16], None);
        (six.local, six.remote) = ("fd00::1".parse().unwrap(), "[fd00::2]:443".parse().unwrap());
        let all = vec![server(1, &[1, 2, 3, 255], None), server(2, &[], Some(1000)), six];
        file.save(all.clone()).unwrap();
        let mode = fs::metadata(place(&scratch)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "no temporary file is left");
        let (file, mut read) = CookieFile::open(place(&scratch)).unwrap();
        let left = read[1].left_alone.take().unwrap();
        assert!(left <= Duration::from_secs(1000) && left > Duration::from_secs(900));
        assert_eq!(read, [all[0].clone(), server(2, &[], None), all[2].clone()]);
        // Without anything new the file is not touched.
        let before = fs::read(place(&scratch)).unwrap();
        file.save(Vec::new()).unwrap();
        assert_eq!(fs::read(place(&scratch)).unwrap(), before);
    }

    #[test]
    fn two_programs_share_it_and_it_does_not_grow_without_end() {
        let scratch = scratch("shared");
        let (one, _) = CookieFile::open(place(&scratch)).unwrap();
        let (other, _) = CookieFile::open(place(&scratch)).unwrap();
        one.save(vec![server(1, &[1; 6], None), server(2, &[1; 6], None)]).unwrap();
        other.save(vec![server(1, &[2; 6], None), server(3, &[2; 6], None)]).unwrap();
        let (_, read) = CookieFile::open(place(&scratch)).unwrap();
        assert_eq!(read, [server(2, &[1; 6], None), server(1, &[2; 6], None), server(3, &[2; 6], None)]);
        one.save((10..2000).map(|n| server(n, &[3; 6], None)).collect()).unwrap();
        let (_, read) = CookieFile::open(place(&scratch)).unwrap();
        assert_eq!((read.len(), read[0].remote), (MOST, server(2000 - MOST as u32, &[], None).remote));
    }

    #[test]
    fn bad_content_is_ignored_and_does_no_harm() {
        let scratch = scratch("bad");
        let good = Line::of(server(5, &[9; 8], None), 0).write();
        for bad in [
            &b"complete nonsense"[..],
            b"10.0.0.1 10.0.0.2:80 1400",
            b"10.0.0.1 10.0.0.2:80 1400 0102",
            b"10.0.0.1 10.0.0.2:80 1400 010203040",
            b"10.0.0.1 10.0.0.2:80 1400 01020304\xc3\xa4",
            b"10.0.0.1 10.0.0.2:80 70000 01020304",
            b"10.0.0.1 10.0.0.2 1400 01020304",
            b"10.0.0.1 10.0.0.2:80 1400 01020304 soon",
            b"10.0.0.1 10.0.0.2:80 1400 01020304 99999999999999999999",
            b"10.0.0.1 10.0.0.2:80 1400 01020304 12 13",
            b"10.0.0.1 10.0.0.2:80 1400 0102030405060708090a0b0c0d0e0f1011",
            b"\x00\xff\xfe binary \x01",
        ] {
            fs::write(place(&scratch), [bad, b"\n\n# remark\n", good.as_bytes()].concat()).unwrap();
            let (file, read) = CookieFile::open(place(&scratch)).unwrap();
            assert_eq!(remotes(&read), [server(5, &[], None).remote], "{}", String::from_utf8_lossy(bad));
            file.save(vec![server(6, &[1; 4], None)]).unwrap();
            let (_, read) = CookieFile::open(place(&scratch)).unwrap();
            assert_eq!(remotes(&read), remotes(&[server(5, &[], None), server(6, &[], None)]));
        }
        // Far too long.
        fs::write(place(&scratch), vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(CookieFile::open(place(&scratch)).unwrap().1, []);
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_named() {
        let scratch = scratch("place");
        let nowhere = scratch.path().join("missing").join("cookies");
        let error = CookieFile::open(nowhere.clone()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(&nowhere.display().to_string()), "{error}");
        assert!(CookieFile::open(scratch.path().to_owned()).is_err(), "a directory");
        // Deleted in the meantime: created again.
        let (file, _) = CookieFile::open(place(&scratch)).unwrap();
        fs::remove_file(place(&scratch)).unwrap();
        file.save(vec![server(1, &[1; 6], None)]).unwrap();
        assert_eq!(CookieFile::open(place(&scratch)).unwrap().1.len(), 1);
    }
}

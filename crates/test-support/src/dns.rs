//! Runs a DNS server, over UDP and TCP, whose answers a test chooses.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

/// The answer of the DNS server for a name.
pub enum Answer {
    /// Addresses of the requested type, with a lifetime of zero.
    Addresses(Vec<IpAddr>),
    /// Names, each an alias of the next, and the addresses of the last name.
    Aliases(Vec<String>, Vec<IpAddr>),
    /// An error code.
    Code(ResponseCode),
    /// These bytes.
    Bytes(Vec<u8>),
    /// No answer.
    Silence,
}

/// A DNS server on loopback.
pub struct Dns {
    /// The address on which it listens.
    pub address: SocketAddr,
    asked: Asked,
}

/// The ids of the questions for each name, by type. A resolver without an answer repeats its question under the same
/// id after a third of a second.
type Asked = Arc<Mutex<HashMap<(String, RecordType), Vec<u16>>>>;

/// Parses addresses.
pub fn addresses(written: &[&str]) -> Answer {
    Answer::Addresses(written.iter().map(|address| address.parse().unwrap()).collect())
}

/// The size of an answer over UDP without EDNS. A longer one needs TCP.
const DATAGRAM: usize = 512;

impl Dns {
    /// Starts a server. `answer` gets a name without its last dot, and how often it was asked before.
    pub async fn start(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Another process may use that port for UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let (asked, answer) = (Asked::default(), Arc::new(answer));
        let reply = {
            let asked = asked.clone();
            move |query: &[u8]| reply(query, &asked, &*answer)
        };
        let by_udp = reply.clone();
        tokio::spawn(async move {
            let mut query = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut query).await {
                if let Some(bytes) = by_udp(&query[..length]) {
                    let _ = udp.send_to(&cut_for_udp(bytes), from).await;
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let reply = reply.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(length)];
                        stream.read_exact(&mut query).await?;
                        if let Some(bytes) = reply(&query) {
                            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await?;
                            stream.write_all(&bytes).await?;
                        }
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address, asked }
    }

    /// Counts the questions for a name's IPv4 addresses.
    pub fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(&(name.to_owned(), RecordType::A)).map_or(0, Vec::len)
    }
}

fn reply(query: &[u8], asked: &Asked, answer: &dyn Fn(&str, usize) -> Answer) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?;
    // Resolvers mix upper and lower case to detect forged answers.
    let name = question.name().to_lowercase().to_utf8().trim_end_matches('.').to_owned();
    let before = {
        let mut asked = asked.lock().unwrap();
        let (ids, id) = (asked.entry((name.clone(), question.query_type())).or_default(), query.metadata.id);
        ids.iter().position(|asked| *asked == id).unwrap_or_else(|| {
            ids.push(id);
            ids.len() - 1
        })
    };
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_query(question.clone());
    let add = |response: &mut Message, name: &Name, addresses: Vec<IpAddr>| {
        for address in addresses {
            let data = match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            if data.record_type() == question.query_type() {
                response.add_answer(Record::from_rdata(name.clone(), 0, data));
            }
        }
    };
    match answer(&name, before) {
        Answer::Addresses(addresses) => add(&mut response, question.name(), addresses),
        Answer::Aliases(aliases, addresses) => {
            let names: Vec<Name> =
                aliases.iter().map(|alias| Name::from_ascii(format!("{alias}.")).unwrap()).collect();
            let owners = std::iter::once(question.name()).chain(&names);
            for (owner, alias) in owners.zip(&names) {
                let alias = RData::CNAME(CNAME(alias.clone()));
                response.add_answer(Record::from_rdata(owner.clone(), 0, alias));
            }
            add(&mut response, names.last().unwrap(), addresses);
        }
        Answer::Code(code) => response.metadata.response_code = code,
        Answer::Bytes(bytes) => return Some(bytes),
        Answer::Silence => return None,
    }
    Some(response.to_vec().unwrap())
}

fn cut_for_udp(bytes: Vec<u8>) -> Vec<u8> {
    match Message::from_vec(&bytes) {
        Ok(message) if bytes.len() > DATAGRAM => message.truncate().to_vec().unwrap(),
        _ => bytes,
    }
}

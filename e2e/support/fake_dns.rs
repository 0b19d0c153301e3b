//! A DNS server that knows one name.

use std::net::{Ipv4Addr, UdpSocket};

/// Where the question starts in a message: behind the header.
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
const CLASS_IN: [u8; 2] = [0, 1];
/// "As in the question": a pointer to what stands behind the header.
const SAME_NAME: [u8; 2] = [0xC0, 12];

/// Answers on `at` that `name` is at `address` until the process ends. Other names do not exist, and no name has
/// addresses of other kinds.
pub fn start(at: (Ipv4Addr, u16), name: &'static str, address: Ipv4Addr) {
    let socket = UdpSocket::bind(at).expect("port 53 is free in a network namespace of its own");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let answer = answer(&buffer[..length], name, address);
            socket.send_to(&answer, client).unwrap();
        }
    });
}

fn answer(query: &[u8], name: &str, address: Ipv4Addr) -> Vec<u8> {
    let asked = wire_name(name);
    let question_end =
        HEADER + query[HEADER..].iter().position(|&byte| byte == 0).expect("a name ends in 0") + 5;
    let question = &query[HEADER..question_end];
    let known = question.to_ascii_lowercase().starts_with(&asked);
    let found = known && question[asked.len()..] == [TYPE_A, CLASS_IN].concat();

    let mut message = query[..2].to_vec();
    // A response, recursion available; code 3 says that there is no such name.
    message.extend([0x81, if known { 0x80 } else { 0x83 }]);
    message.extend([0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    message.extend(question);
    if found {
        message.extend([SAME_NAME, TYPE_A, CLASS_IN].concat());
        message.extend([0, 0, 0, 1, 0, 4]);
        message.extend(address.octets());
    }
    message
}

/// Each label behind its length, then a length of 0.
fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).expect("a label is short"));
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

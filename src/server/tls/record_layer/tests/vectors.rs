//! The records of application data in RFC 8448, section 3, whose suite is TLS_AES_128_GCM_SHA256.

use super::super::*;
use crate::fuzzing::tls_opener::Run;
use crate::fuzzing::tls_opener::naive::Naive;

/// `client_application_traffic_secret_0` and `server_application_traffic_secret_0`.
const SECRETS: [&str; 2] = [
    "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
    "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
];

// The client's second flight: 50 bytes from 0 on, and close_notify.
const CLIENT_DATA: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395b\
    d54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const CLIENT_ALERT: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";

// The same from the server, after a session ticket.
const SERVER_DATA: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc\
    602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const SERVER_ALERT: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

#[test]
fn the_records_of_rfc_8448_open_and_are_sealed() {
    let [client, server] = SECRETS.map(|secret| Naive::new(1, &bytes(secret)));
    let mut layer = Run::with(client, server.at(1)).layer;
    assert_eq!(layer.open(&mut bytes(CLIENT_DATA)), Ok(Received::Data));
    assert_eq!(layer.open(&mut bytes(CLIENT_ALERT)), Ok(Received::Closed));

    let data: Vec<u8> = (0..50).collect();
    let mut wire = Vec::new();
    assert_eq!(layer.seal(&[IoSlice::new(&data)], &mut wire), 50);
    assert_eq!(wire, bytes(SERVER_DATA));
    wire.clear();
    layer.seal_alert(Alert::CloseNotify, &mut wire);
    assert_eq!(wire, bytes(SERVER_ALERT));
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

"""An issuer of tokens and its DNS, for check/binary.sh: /jwks by https on port 8443, and 127.0.0.1 for every name."""

import http.server
import socketserver
import ssl
import sys
import threading

KEYS = b'{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(KEYS)))
        self.end_headers()
        self.wfile.write(KEYS)

    def log_message(self, *_):
        pass


class Names(socketserver.BaseRequestHandler):
    def handle(self):
        query, answer = self.request
        end = query.index(b"\0", 12) + 5
        kind = query[end - 4:end - 2]
        record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01" if kind == b"\0\x01" else b""
        count = b"\0\x01" if record else b"\0\0"
        answer.sendto(query[:2] + b"\x81\x80\0\x01" + count + b"\0\0\0\0" + query[12:end] + record, self.client_address)


names = socketserver.UDPServer(("127.0.0.1", 53), Names)
threading.Thread(target=names.serve_forever, daemon=True).start()
issuer = http.server.HTTPServer(("127.0.0.1", 8443), Issuer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{sys.argv[1]}/cert.pem", f"{sys.argv[1]}/key.pem")
issuer.socket = context.wrap_socket(issuer.socket, server_side=True)
issuer.serve_forever()

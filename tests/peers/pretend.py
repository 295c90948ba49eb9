"""A server that only pretends to be the agent: listens on SOCKET, says so, and writes down in RECORD what it is sent."""

import os
import socket
import sys

path, record = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen()
print("listening", flush=True)
with open(record, "ab", buffering=0) as file:
    while True:
        connection, _ = listener.accept()
        file.write(b"connected\n")
        connection.settimeout(25)
        while piece := connection.recv(65536):
            file.write(piece)
            if b"\r\n\r\n" in piece:
                connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                break
        connection.close()

"""A client in whatever process this is: connects to SOCKET, asks for TARGET and prints the status and the body."""

import socket
import sys

path, target = sys.argv[1:]
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(25)
connection.connect(path)
connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
reply = b""
while piece := connection.recv(65536):
    reply += piece
head, _, body = reply.partition(b"\r\n\r\n")
print(head.split()[1].decode(), body.decode(errors="replace"))

# The part of umqtt.simple that main.py uses, with the same signatures, for CPython: MQTT 3.1.1, one message on its way.
import socket
import struct


class MQTTException(Exception):
    pass


def text(value):
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def packet(kind, body):
    length, head = len(body), bytearray([kind])
    while True:
        head.append(length % 128 | (128 if length > 127 else 0))
        length //= 128
        if not length:
            return bytes(head) + body


class MQTTClient:
    def __init__(self, client_id, server, port=0, user=None, password=None, keepalive=0, ssl=None):
        self.client_id, self.server, self.port, self.user, self.password = client_id, server, port, user, password
        self.keepalive, self.ssl, self.pid = keepalive, ssl, 0

    def connect(self, clean_session=True):
        self.sock = socket.create_connection((self.server, self.port), timeout=20)
        if self.ssl:
            self.sock = self.ssl.wrap_socket(self.sock, server_hostname=self.server)
        self.sock.sendall(packet(0x10, b"\x00\x04MQTT\x04" + struct.pack("!BH", 0xC0 | clean_session << 1, self.keepalive)
                                 + text(self.client_id) + text(self.user) + text(self.password)))
        answer = self.read(4)
        assert answer[:2] == b"\x20\x02", answer
        if answer[3]:
            raise MQTTException(answer[3])

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise OSError(-1)
            data += more
        return data

    def publish(self, topic, msg, retain=False, qos=0):
        assert qos == 1
        self.pid += 1
        self.sock.sendall(packet(0x32 | retain, text(topic) + struct.pack("!H", self.pid) + msg.encode()))
        assert self.read(4) == b"\x40\x02" + struct.pack("!H", self.pid)

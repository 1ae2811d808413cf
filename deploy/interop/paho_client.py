"""What scripts and Home Assistant do, with paho for Python. usage: paho_client.py TCP_PORT TLS_PORT WS_PORT CA_FILE USER PASSWORD"""
import os
import queue
import subprocess
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

tcp, tls, ws, ca, user, password = sys.argv[1:]
ways = {"plain": ("127.0.0.1", int(tcp), "tcp"), "tls": ("localhost", int(tls), "tcp"), "websocket": ("127.0.0.1", int(ws), "websockets")}
protocols = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
patience = 10
PUBREC, PUBCOMP = 5, 7


class Client:
    """One client whose loop runs in a thread; what it hears is in queues."""

    def __init__(self, way, protocol, client_id="", clean=True, will=None, port=None):
        self.host, self.port, transport = ways[way]
        self.port = port or self.port
        self.five, self.clean = protocol == mqtt.MQTTv5, clean
        kept = {} if self.five else {"clean_session": clean}
        self.paho = mqtt.Client(client_id, protocol=protocol, transport=transport, **kept)
        self.paho.username_pw_set(user, password)
        self.paho.reconnect_delay_set(0.05, 0.05)
        if way == "tls":
            self.paho.tls_set(ca)
        if will:
            self.paho.will_set(*will)
        self.connects, self.messages, self.acks = queue.Queue(), queue.Queue(), queue.Queue()
        self.paho.on_connect = lambda client, userdata, flags, code, properties=None: self.connects.put((flags["session present"], code))
        self.paho.on_message = lambda client, userdata, message: self.messages.put(message)
        self.paho.on_subscribe = lambda client, userdata, mid, granted, properties=None: self.acks.put(granted)

    def __enter__(self):
        kept = {}
        if self.five:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if self.clean else 3600
            kept = {"clean_start": self.clean, "properties": properties}
        self.paho.connect(self.host, self.port, **kept)
        self.paho.loop_start()
        present, code = self.connects.get(timeout=patience)
        assert code == 0, code
        self.present = bool(present)
        return self

    def __exit__(self, *_):
        self.paho.disconnect()
        self.paho.loop_stop()

    def subscribe(self, topic, qos, **options):
        self.paho.subscribe(topic, options=SubscribeOptions(qos, **options)) if options else self.paho.subscribe(topic, qos)
        granted = self.acks.get(timeout=patience)[0]
        assert getattr(granted, "value", granted) == qos, granted

    def publish(self, topic, text, qos=1, **more):
        info = self.paho.publish(topic, text, qos, **more)
        info.wait_for_publish(patience)
        assert info.is_published(), text

    def next(self):
        return self.messages.get(timeout=patience)


def texts(client, count):
    return [client.next().payload.decode() for _ in range(count)]


def scenario(way, protocol, name):
    topic, five = "paho/" + name.replace(" ", "-"), protocol == mqtt.MQTTv5
    with Client(way, protocol, "a") as a, Client(way, protocol, "b") as b:
        a.subscribe(topic + "/echo", 2)
        for qos in range(3):
            b.publish(topic + "/echo", name, qos)
            message = a.next()
            assert (message.payload.decode(), message.qos, message.retain, message.dup) == (name, qos, False, False), vars(message)

        b.publish(topic + "/state", "on", retain=True)
        a.subscribe(topic + "/state", 1)
        message = a.next()
        assert (message.payload, message.retain) == (b"on", True)
        b.publish(topic + "/state", "", retain=True)
        assert a.next().payload == b""

        dying = Client(way, protocol, "dying", will=(topic + "/state", "gone", 2, False)).__enter__()
        dying.paho.loop_stop()
        dying.paho.socket().close()
        assert a.next().payload == b"gone"

        with Client(way, protocol, "away", clean=False) as away:
            away.subscribe(topic + "/queue", 2)
        for i in range(10):
            b.publish(topic + "/queue", i, 1 + i % 2)
        with Client(way, protocol, "away", clean=False) as away:
            assert away.present or protocol == mqtt.MQTTv31
            assert sorted(texts(away, 10)) == [str(i) for i in range(10)]
        with Client(way, protocol, "away") as away:
            assert not away.present

        if not five:
            return
        asked = Properties(PacketTypes.PUBLISH)
        asked.ResponseTopic, asked.CorrelationData = topic + "/answer", b"one"
        asked.UserProperty = [("k", "v"), ("k", "w")]
        a.subscribe(topic + "/ask", 1)
        b.subscribe(topic + "/answer", 1)
        b.publish(topic + "/ask", "how warm?", properties=asked)
        got = a.next().properties
        assert (got.ResponseTopic, got.CorrelationData, got.UserProperty) == (topic + "/answer", b"one", [("k", "v"), ("k", "w")])
        answer = Properties(PacketTypes.PUBLISH)
        answer.CorrelationData = got.CorrelationData
        a.publish(got.ResponseTopic, "21.5", properties=answer)
        assert b.next().properties.CorrelationData == b"one"

        b.subscribe(topic + "/own", 1, noLocal=True)
        b.publish(topic + "/own", "mine")
        a.publish(topic + "/own", "yours")
        assert b.next().payload == b"yours"

        a.subscribe(topic + "/number/+", 1)
        for i in range(10):
            number = Properties(PacketTypes.PUBLISH)
            number.TopicAlias = 1 + i % 2 * 15
            to = f"{topic}/number/{i % 2}"
            b.publish(to if i < 2 else "", i, properties=number)
            message = a.next()
            assert (message.topic, message.payload.decode()) == (to, str(i)), message.topic


def broken(protocol, kind, name):
    """The connection breaks before the client gets the server's first packet of a kind; each message arrives once all the same."""
    cut = subprocess.Popen(["node", os.path.join(os.path.dirname(__file__), "cut.mjs"), tcp, str(kind)], stdout=subprocess.PIPE, text=True)
    try:
        with Client("plain", protocol, "listener") as listener:
            listener.subscribe("paho/broken", 2)
            with Client("plain", protocol, "broken", clean=False, port=int(cut.stdout.readline())) as sender:
                for i in range(5):
                    sender.publish("paho/broken", i, 2)
                sender.publish("paho/broken", "end", 2)
            assert texts(listener, 6) == ["0", "1", "2", "3", "4", "end"], name
    finally:
        cut.terminate()
        cut.wait()


for way in ways:
    for version, protocol in protocols.items():
        scenario(way, protocol, way + " " + version)
        print(f"{way}, MQTT {version}: all QoS, retained, will, session" + (", request and answer, No Local, topic aliases" if version == "5" else ""))
for version, protocol in protocols.items():
    for kind, packet in {PUBREC: "PUBREC", PUBCOMP: "PUBCOMP"}.items():
        broken(protocol, kind, version + " " + packet)
        print(f"MQTT {version}: the connection breaks before {packet}, and each message of QoS 2 arrives once")

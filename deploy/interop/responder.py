"""Answers requests on ask/+ where they say, in MQTT 5, or on answer/+. usage: responder.py PORT USER PASSWORD"""
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def answer(client, userdata, message):
    asked, properties = message.properties, Properties(PacketTypes.PUBLISH)
    if hasattr(asked, "CorrelationData"):
        properties.CorrelationData = asked.CorrelationData
    topic = getattr(asked, "ResponseTopic", "answer/" + message.topic.split("/")[1])
    client.publish(topic, message.payload.decode().upper(), qos=1, properties=properties)


port, user, password = sys.argv[1:]
client = mqtt.Client("responder", protocol=mqtt.MQTTv5)
client.username_pw_set(user, password)
client.on_message = answer
client.on_subscribe = lambda *_: print("ready", flush=True)
client.connect("127.0.0.1", int(port))
client.subscribe("ask/+", qos=1)
client.loop_forever()

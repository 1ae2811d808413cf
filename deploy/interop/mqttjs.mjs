// Publishes with MQTT.js over each listener, version and QoS, and tries what must be refused.
// usage: node mqttjs.mjs TCP_PORT TLS_PORT WS_PORT CA_FILE DEVICE PASSWORD
import { readFileSync } from 'node:fs'
import mqtt from 'mqtt'

const [tcp, tls, ws, caFile, device, password] = process.argv.slice(2)
const options = { username: device, password, reconnectPeriod: 0, connectTimeout: 10000, ca: readFileSync(caFile) }
const urls = { plain: `mqtt://127.0.0.1:${tcp}`, tls: `mqtts://localhost:${tls}`, websocket: `ws://127.0.0.1:${ws}` }
const base = Date.now() - 3600_000
let sent = 0

for (const [name, url] of Object.entries(urls)) {
  for (const protocolVersion of [4, 5]) {
    const client = await mqtt.connectAsync(url, { ...options, protocolVersion })
    for (const qos of [0, 1, 2]) {
      sent++
      await client.publishAsync(`devices/${device}/telemetry`, JSON.stringify({ timestamp: base + sent, temperature: sent }), { qos })
    }
    const echoed = new Promise((resolve) => client.once('message', (topic, payload) => resolve(payload.toString())))
    await client.subscribeAsync(`devices/${device}/echo`, { qos: 1 })
    await client.publishAsync(`devices/${device}/echo`, `${name} ${protocolVersion}`, { qos: 1 })
    if ((await echoed) !== `${name} ${protocolVersion}`) throw new Error(`${name}: wrong echo`)
    await client.endAsync()

    for (const [why, wrong] of Object.entries({ 'wrong password': { password: 'wrong' }, anonymous: { username: undefined, password: undefined } })) {
      const refused = await mqtt.connectAsync(url, { ...options, ...wrong, protocolVersion }).then(
        (c) => c.endAsync().then(() => false),
        (err) => err.code === 4 || err.code === 5 || err.code === 134 || err.code === 135,
      )
      if (!refused) throw new Error(`${name}, version ${protocolVersion}: ${why} was not refused`)
    }
    console.log(`${name}, version ${protocolVersion}: published QoS 0, 1, 2, got its echo; strangers refused`)
  }
}
console.log(`sent ${sent}`)

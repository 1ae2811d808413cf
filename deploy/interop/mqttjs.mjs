// What browsers, Node-RED and Zigbee2MQTT do, with MQTT.js 5 and 4, in MQTT 3.1.1 and 5, over TCP, TLS and websocket.
// usage: node mqttjs.mjs TCP_PORT TLS_PORT WS_PORT CA_FILE DEVICE PASSWORD USER USER_PASSWORD
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import mqtt5 from 'mqtt'
import mqtt4 from 'mqtt4'

const [tcp, tls, ws, caFile, device, password, user, userPassword] = process.argv.slice(2)
const options = { reconnectPeriod: 0, connectTimeout: 10000, ca: readFileSync(caFile) }
const urls = { plain: `mqtt://127.0.0.1:${tcp}`, tls: `mqtts://localhost:${tls}`, websocket: `ws://127.0.0.1:${ws}` }
const libraries = { 'MQTT.js 5': mqtt5, 'MQTT.js 4': mqtt4 }
const base = Date.now() - 3600_000
let sent = 0

// A client with promises, which MQTT.js 4 does not have, that keeps what it receives.
async function connect(library, url, more) {
  const client = library.connect(url, { ...options, username: user, password: userPassword, ...more })
  const inbox = []
  let wake = () => {}
  client.on('message', (topic, payload, packet) => { inbox.push({ topic, text: payload.toString(), ...packet }); wake() })
  const connack = await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject).once('close', () => reject(new Error('closed'))))
  return {
    client, connack,
    publish: promisify(client.publish.bind(client)),
    subscribe: promisify(client.subscribe.bind(client)),
    unsubscribe: promisify(client.unsubscribe.bind(client)),
    end: (force) => new Promise((resolve) => client.end(!!force, {}, resolve)),
    async next() {
      const late = AbortSignal.timeout(10_000)
      while (!inbox.length) {
        await new Promise((resolve, reject) => { wake = resolve; late.onabort = () => reject(new Error('no message')) })
      }
      return inbox.shift()
    },
    empty: () => inbox.length === 0,
  }
}

async function refused(library, url, more) {
  try {
    await (await connect(library, url, more)).end()
    return false
  } catch (err) {
    return [4, 5, 134, 135].includes(err.code)
  }
}

async function scenario(library, url, protocolVersion, name) {
  const own = { username: device, password, protocolVersion }
  const sensor = await connect(library, url, own)
  for (const qos of [0, 1, 2]) {
    sent++
    await sensor.publish(`devices/${device}/telemetry`, JSON.stringify({ timestamp: base + sent, temperature: sent }), { qos })
  }
  await sensor.subscribe(`devices/${device}/echo`, { qos: 2 })
  for (const qos of [0, 1, 2]) {
    await sensor.publish(`devices/${device}/echo`, name, { qos })
    const echo = await sensor.next()
    assert.deepEqual([echo.text, echo.qos, echo.retain, echo.dup], [name, qos, false, false])
  }
  await sensor.end()
  assert(await refused(library, url, { ...own, password: 'wrong' }), 'wrong password')
  assert(await refused(library, url, { ...own, username: undefined, password: undefined }), 'anonymous')

  // Retained messages come at once, and go with an empty one.
  const home = await connect(library, url, { protocolVersion })
  const topic = `home/${name.replaceAll(' ', '-')}`
  await home.publish(`${topic}/state`, 'on', { qos: 1, retain: true })
  const panel = await connect(library, url, { protocolVersion })
  await panel.subscribe(`${topic}/#`, { qos: 1 })
  const state = await panel.next()
  assert.deepEqual([state.text, state.retain], ['on', true])
  await home.publish(`${topic}/state`, '', { qos: 1, retain: true })
  assert.deepEqual(await panel.next().then((m) => [m.text, m.retain]), ['', false])
  await panel.unsubscribe(`${topic}/#`)
  await panel.subscribe(`${topic}/state`, { qos: 1 })

  // A will, retained, of a client that is gone without a word.
  const dying = await connect(library, url, { protocolVersion, will: { topic: `${topic}/state`, payload: 'offline', qos: 1, retain: true } })
  dying.client.stream.destroy()
  assert.deepEqual(await panel.next().then((m) => m.text), 'offline')
  await home.publish(`${topic}/state`, '', { qos: 1, retain: true })
  await panel.next()
  assert(panel.empty())

  // A session that is taken up has what came meanwhile, in its order.
  const session = { protocolVersion, clientId: `session ${name}`, clean: false, properties: protocolVersion === 5 ? { sessionExpiryInterval: 3600 } : undefined }
  const away = await connect(library, url, session)
  assert.equal(away.connack.sessionPresent, false)
  await away.subscribe(`${topic}/queue`, { qos: 2 })
  await away.end()
  for (let i = 0; i < 10; i++) await home.publish(`${topic}/queue`, `${i}`, { qos: 1 + (i % 2) })
  const back = await connect(library, url, session)
  assert.equal(back.connack.sessionPresent, true)
  const got = [[], []]
  for (let i = 0; i < 10; i++) {
    const message = await back.next()
    got[message.qos - 1].push(message.text)
  }
  assert.deepEqual(got, [['0', '2', '4', '6', '8'], ['1', '3', '5', '7', '9']])
  await back.end()
  await (await connect(library, url, { ...session, clean: true, properties: undefined })).end()

  if (protocolVersion === 5) { // a request and its answer
    await panel.subscribe(`${topic}/ask`, { qos: 1 })
    await home.subscribe(`${topic}/answer`, { qos: 1 })
    await home.publish(`${topic}/ask`, 'how warm?', { qos: 1, properties: { responseTopic: `${topic}/answer`, correlationData: Buffer.from('one'), userProperties: { from: ['me', 'her'] }, contentType: 'text/plain', payloadFormatIndicator: true } })
    const { properties } = await panel.next()
    assert.deepEqual([properties.responseTopic, properties.correlationData.toString(), { ...properties.userProperties }.from, properties.contentType], [`${topic}/answer`, 'one', ['me', 'her'], 'text/plain'])
    await panel.publish(properties.responseTopic, '21.5', { qos: 1, properties: { correlationData: properties.correlationData } })
    const answer = await home.next()
    assert.deepEqual([answer.text, answer.properties.correlationData.toString()], ['21.5', 'one'])

    // Topics that have numbers after their first time, more topics than numbers.
    const short = await connect(library, url, { protocolVersion, autoAssignTopicAlias: true })
    assert.equal(short.connack.properties.topicAliasMaximum, 16)
    let bare = 0
    short.client.on('packetsend', (packet) => { if (packet.cmd === 'publish' && packet.topic === '') bare++ })
    await panel.subscribe(`${topic}/number/+`, { qos: 1 })
    for (let i = 0; i < 60; i++) {
      const to = `${topic}/number/${i < 30 ? i % 3 : i % 20}`
      await short.publish(to, `${i}`, { qos: 1 })
      assert.deepEqual(await panel.next().then((m) => [m.topic, m.text]), [to, `${i}`])
    }
    assert(bare >= 27, `${bare} messages without their topic`)
    await short.end()
  }
  await home.end()
  await panel.end()
}

// The connection breaks before the client gets the server's first packet of a type. MQTT.js sends again without DUP; each message of
// QoS 2 arrives once all the same.
async function broken(library, protocolVersion, type) {
  const cut = spawn(process.execPath, [fileURLToPath(new URL('cut.mjs', import.meta.url)), tcp, type], { stdio: ['ignore', 'pipe', 'inherit'] })
  const port = await new Promise((resolve) => cut.stdout.once('data', (data) => resolve(`${data}`.trim())))
  const listener = await connect(library, urls.plain, { protocolVersion })
  await listener.subscribe('broken', { qos: 2 })
  const session = { clientId: 'broken', clean: false, reconnectPeriod: 50, properties: protocolVersion === 5 ? { sessionExpiryInterval: 3600 } : undefined }
  const sender = await connect(library, `mqtt://127.0.0.1:${port}`, { protocolVersion, ...session })
  for (const text of ['0', '1', '2', 'end']) await sender.publish('broken', text, { qos: 2 })
  const got = []
  do got.push((await listener.next()).text); while (got.at(-1) !== 'end')
  assert.deepEqual(got, ['0', '1', '2', 'end'])
  for (const client of [sender, listener]) await client.end()
  await (await connect(library, urls.plain, { protocolVersion, clientId: 'broken' })).end()
  cut.kill()
}

for (const [version, library] of Object.entries(libraries)) {
  for (const protocolVersion of [4, 5]) {
    for (const [packet, type] of Object.entries({ PUBREC: 5, PUBCOMP: 7 })) {
      const name = `${version}, protocol ${protocolVersion}: the connection breaks before ${packet}`
      await broken(library, protocolVersion, type).catch((err) => { throw new Error(name, { cause: err }) })
      console.log(`${name}, and each message of QoS 2 arrives once`)
    }
  }
  for (const [way, url] of Object.entries(urls)) {
    for (const protocolVersion of [4, 5]) {
      const name = `${version} ${way} protocol ${protocolVersion}`
      await scenario(library, url, protocolVersion, name).catch((err) => { throw new Error(name, { cause: err }) })
      console.log(`${name}: all QoS, retained, will, session${protocolVersion === 5 ? ', request and answer, topic aliases' : ''}; strangers refused`)
    }
  }
}
console.log(`sent ${sent}`)

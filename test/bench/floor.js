/**
 * The floor: receives, parses with JSON.parse and appends each frame's text to a file, buffered like the capture
 * (64 KiB, 40 ms), synced each second. Frames that are compressed are gunzipped. Nothing of a capture. Arguments:
 * address, file.
 */
import { fdatasync, openSync, writeSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import WebSocket from 'ws'

const file = openSync(process.argv[3], 'a')
let pending = ''
let parsed = 0
const flush = () => {
  if (pending === '') return
  writeSync(file, pending)
  pending = ''
}
setInterval(flush, 40)
setInterval(() => fdatasync(file, () => undefined), 1000)
const socket = new WebSocket(process.argv[2], { perMessageDeflate: false })
socket.on('open', () => socket.send('go'))
socket.on('message', (data, isBinary) => {
  const text = (isBinary ? gunzipSync(data) : data).toString()
  if (JSON.parse(text) !== undefined) parsed++
  pending += `${text}\n`
  if (pending.length > 65_536) flush()
})
process.on('SIGTERM', () => {
  flush()
  console.log(`parsed ${parsed}`)
  process.exit()
})

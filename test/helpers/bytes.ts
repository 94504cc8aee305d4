import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'

/** A frame of the WebSocket protocol as servers send it. `opcode`: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong. */
export function wsFrame(opcode: number, payload: Buffer, fin = true): Buffer {
  const { length } = payload
  const first = (fin ? 0x80 : 0) | opcode
  if (length < 126) return Buffer.concat([Buffer.of(first, length), payload])
  const head = Buffer.alloc(length < 65_536 ? 4 : 10)
  head[0] = first
  head[1] = length < 65_536 ? 126 : 127
  if (length < 65_536) head.writeUInt16BE(length, 2)
  else head.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([head, payload])
}

/** Accepts an upgrade whose request, head and all, is this text. */
export function answerUpgrade(socket: Duplex, request: string): void {
  const key = /^sec-websocket-key: *(\S+)/im.exec(request)?.[1] ?? ''
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`
  )
}

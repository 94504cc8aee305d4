import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, createServer, type Server, type Socket as TcpSocket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { WebSocketServer } from 'ws'
import { Fetcher } from '../../src/wire/fetcher.ts'
import { Socket } from '../../src/wire/socket.ts'
import { answerUpgrade, wsFrame } from '../helpers/bytes.ts'
import { CERTIFICATE } from '../helpers/certificate.ts'

const WAIT = { timeout: 15_000, interval: 5 }

/** What a socket was told. */
interface Told {
  readonly texts: string[]
  readonly ends: [code: number, reason: string][]
}

let far: Server
let port: number
/** What the far end does with a connection, once the first bytes of it have come. */
let script: (socket: TcpSocket, request: string) => void
const sockets: TcpSocket[] = []

beforeEach(async () => {
  // A far end that ends nothing by itself.
  far = createServer({ allowHalfOpen: true }, socket => {
    sockets.push(socket)
    socket.on('error', () => undefined)
    let request = ''
    const hear = (chunk: Buffer) => {
      request += chunk.toString('latin1')
      if (!request.includes('\r\n\r\n')) return
      socket.off('data', hear)
      script(socket, request)
      socket.resume()
    }
    socket.on('data', hear)
  })
  await new Promise<void>(resolve => far.listen(0, '127.0.0.1', resolve))
  port = (far.address() as AddressInfo).port
})
afterEach(async () => {
  vi.useRealTimers()
  for (const socket of sockets.splice(0)) socket.destroy()
  await new Promise(resolve => far.close(resolve))
})

/** Opens a socket to the far end. */
async function open(url = `ws://127.0.0.1:${port}`): Promise<Told & { socket: Socket }> {
  const told: Told = { texts: [], ends: [] }
  const socket = await Socket.open(url, new AbortController().signal, () => ({
    onMessage: data => void told.texts.push(data.toString()),
    onEnd: (code, reason) => void told.ends.push([code, reason])
  }))
  return { ...told, socket }
}

/** Upgrades, then says these bytes, then does the rest. */
const say =
  (bytes: Buffer, then: (socket: TcpSocket) => void = () => undefined): typeof script =>
  (socket, request) => {
    answerUpgrade(socket, request)
    socket.write(bytes, () => then(socket))
  }

const closing = (code: number, reason = '') => {
  const payload = Buffer.alloc(2)
  payload.writeUInt16BE(code)
  return wsFrame(8, Buffer.concat([payload, Buffer.from(reason)]))
}
const CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]

describe('every end is told once, with what is known of it', () => {
  it.each(CODES)('close code %i', async code => {
    script = say(closing(code, `because ${code}`), socket => socket.end())
    const { ends } = await open()
    await vi.waitFor(() => expect(ends).toEqual([[code, `because ${code}`]]), WAIT)
  })

  it.each([
    ['a close frame without a code', wsFrame(8, Buffer.alloc(0)), 1005],
    ['the end of TCP without a close frame', Buffer.alloc(0), 1006],
    ['the end in the middle of a frame', wsFrame(1, Buffer.from('{"cut":"short"}')).subarray(0, 9), 1006],
    ['the end in the middle of a message', wsFrame(1, Buffer.from('{"cut":'), false), 1006]
  ])('%s', async (_name, bytes, code) => {
    script = say(bytes, socket => socket.end())
    const { ends, texts } = await open()
    await vi.waitFor(() => expect(ends).toEqual([[code, code === 1006 ? 'no close frame' : '']]), WAIT)
    expect(texts).toEqual([])
  })

  it('a reset of TCP', async () => {
    script = say(wsFrame(1, Buffer.from('one')))
    const { ends, texts } = await open()
    await vi.waitFor(() => expect(texts).toEqual(['one']), WAIT)
    sockets[0]!.resetAndDestroy()
    await vi.waitFor(() => expect(ends).toHaveLength(1), WAIT)
    expect(ends[0]![0]).toBe(1006)
    expect(ends[0]![1]).toMatch(/ECONNRESET/)
  })

  // The far end does nothing more in these: what it said is the end all the same.
  it.each([
    ['a frame larger than the limit', Buffer.from([0x81, 127, 0, 0, 0, 0, 0x10, 0, 0, 0])],
    ['a compressed frame, which was not agreed on', Buffer.from([0xc1, 1, 0])],
    ['an unknown kind of frame', Buffer.from([0x83, 0])],
    ['a ping of more than 125 bytes', Buffer.from([0x89, 126, 0, 200])],
    ['a masked frame', Buffer.from([0x81, 0x81, 1, 2, 3, 4, 5])],
    ['a continuation of nothing', wsFrame(0, Buffer.from('x'))],
    ['a forbidden close code', closing(1005)]
  ])('%s ends it at once, though the far end holds the connection', async (_name, bytes) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    script = say(bytes)
    const { ends } = await open()
    for (let turns = 0; turns < 2000 && ends.length === 0; turns++) await new Promise(resolve => setImmediate(resolve))
    expect(ends).toEqual([[1006, expect.stringMatching(/\w/)]])
  })

  it('a close frame after which the far end keeps TCP open is the end within moments', async () => {
    script = say(closing(1012))
    const { ends } = await open()
    const began = performance.now()
    await vi.waitFor(() => expect(ends).toEqual([[1012, '']]), WAIT)
    // The library waits 30 s by itself.
    expect(performance.now() - began).toBeLessThan(10_000)
  })
})

describe('what is allowed on the wire', () => {
  it('messages in pieces with pings between them, and pings are answered', async () => {
    const heard: Buffer[] = []
    script = (socket, request) => {
      answerUpgrade(socket, request)
      socket.on('data', chunk => void heard.push(chunk))
      socket.write(wsFrame(1, Buffer.from('{"a"'), false))
      socket.write(wsFrame(9, Buffer.alloc(125, 'p')))
      socket.write(wsFrame(0, Buffer.from(':1'), false))
      socket.write(wsFrame(10, Buffer.from('unasked')))
      // Byte by byte.
      for (const byte of wsFrame(0, Buffer.from('}'))) socket.write(Buffer.of(byte))
    }
    const { texts, ends } = await open()
    await vi.waitFor(() => expect(texts).toEqual(['{"a":1}']), WAIT)
    await vi.waitFor(() => expect(Buffer.concat(heard)[0]).toBe(0x8a), WAIT)
    expect(ends).toEqual([])
  })

  it('text that is no UTF-8 is handed over, not an end', async () => {
    script = say(wsFrame(1, Buffer.from([0x7b, 0xff, 0xfe])))
    const { texts, ends } = await open()
    await vi.waitFor(() => expect(texts).toHaveLength(1), WAIT)
    expect(ends).toEqual([])
  })
})

describe('a socket that does not open', () => {
  it.each([
    ['says nothing', ''],
    ['says a byte now and then', 'HTTP/1.1 101 Switching']
  ])('because the far end %s: given up within 10 s', async (_name, said) => {
    let asked = false
    script = () => {
      asked = true
    }
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const opening = open()
    const outcome = expect(opening).rejects.toThrow(/10000 ms/)
    while (!asked) await new Promise(resolve => setImmediate(resolve))
    for (let second = 0; second < 10; second++) {
      if (said) sockets[0]!.write(said[second]!)
      vi.advanceTimersByTime(1000)
      await new Promise(resolve => setImmediate(resolve))
    }
    await outcome
    await vi.waitFor(() => expect(sockets[0]!.destroyed || sockets[0]!.readableEnded).toBe(true), WAIT)
  })

  it.each([
    ['429 Too Many Requests', 'Retry-After: 7', 429, 7000],
    ["418 I'm a teapot", '', 418, 0],
    ['503 Service Unavailable', 'Retry-After: 99999999999', 503, 0],
    ['301 Moved', 'Location: ws://127.0.0.1:1/', 301, 0]
  ])('because it is answered %s with %j', async (line, header, status, waitMs) => {
    script = socket => socket.end(`HTTP/1.1 ${line}\r\n${header ? `${header}\r\n` : ''}Content-Length: 0\r\n\r\n`)
    await expect(open()).rejects.toMatchObject({ status, waitMs })
  })

  it.each([
    ['nobody listens', 'ws://127.0.0.1:1'],
    ['the name is unknown', 'ws://nobody.invalid']
  ])('because %s', async (_name, url) => {
    await expect(open(url)).rejects.toThrow(/ECONNREFUSED|ENOTFOUND|EAI_AGAIN/)
  })

  it('because what begins with it fails: the error comes out, and the connection is cut', async () => {
    script = say(Buffer.alloc(0))
    const opening = Socket.open(`ws://127.0.0.1:${port}`, new AbortController().signal, () => {
      throw new TypeError('a mistake')
    })
    await expect(opening).rejects.toThrow('a mistake')
    await vi.waitFor(() => expect(sockets[0]!.destroyed || sockets[0]!.readableEnded).toBe(true), WAIT)
  })
})

describe.each(['unset', '0'])('a server that cannot prove who it is, NODE_TLS_REJECT_UNAUTHORIZED %s', value => {
  it('is refused, over WebSocket and over REST', async () => {
    if (value !== 'unset') vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', value)
    let answered = 0
    const server = createHttpsServer(CERTIFICATE, (_, response) => {
      answered++
      response.end('{}')
    })
    const upgrades = new WebSocketServer({ server })
    upgrades.on('connection', () => answered++)
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    try {
      const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
      await expect(open(`wss://${address}`)).rejects.toMatchObject({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
      const answer = await new Fetcher(`https://${address}`, 10).send({ path: '/' }, new AbortController().signal)
      expect(answer).toMatchObject({ status: 0, text: expect.stringContaining('self-signed') })
      expect(answered).toBe(0)
    } finally {
      vi.unstubAllEnvs()
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    }
  })
})

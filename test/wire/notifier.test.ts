import { createServer as createHttp, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { type AddressInfo, createServer as createTcp } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { beat, type Notice, Notifier, pagerDuty, type Receiver, slack, webhook } from '../../src/wire/notifier.ts'
import { CERTIFICATE } from '../helpers/certificate.ts'

const SECRET = 'T0SECRET0B0/verySecretToken'
const KEY = '0123456789abcdef0123456789ABCDEF'
const NOTICE: Notice = {
  event: 'trigger',
  key: 'host:/vault:torn_line:okx:BTC-USDT:trades',
  rule: 'torn_line',
  severity: 'error',
  summary: 'okx BTC-USDT trades: the line is <cut> & off (12 places)',
  since_utc: '2026-11-20T23:00:00.000Z',
  at_utc: '2026-11-20T23:01:00.000Z',
  vault: '/vault',
  host: 'host',
  exchange: 'okx',
  count: 12,
  files: ['raw/a.jsonl'],
  findings: [
    { rule: 'torn_line', file: 'raw/a.jsonl', line: 7, time_utc: null, message: 'the line is <!channel> cut' },
    { rule: 'torn_line', file: 'raw/a.jsonl', line: null, time_utc: '2026-11-20T23:00:00.000Z', message: 'b' },
    { rule: 'torn_line', file: '', line: null, time_utc: null, message: 'c' }
  ]
}

type Answer = (response: ServerResponse) => void

let server: Server
let base: string
let answers: Answer[]
let asked: { url: string; method: string; headers: IncomingHttpHeaders; body: unknown }[]
let waited: number[]

beforeEach(async () => {
  answers = []
  asked = []
  waited = []
  server = createHttp((request, response) => {
    let body = ''
    request.on('data', chunk => {
      body += String(chunk)
    })
    request.on('end', () => {
      const { url = '', method = '', headers } = request
      asked.push({ url, method, headers, body: body === '' ? null : JSON.parse(body) })
      const answer = answers.shift()
      if (answer) answer(response)
      else response.writeHead(202).end('{"status":"success"}')
    })
  })
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(async () => {
  server.closeAllConnections()
  await new Promise(done => server.close(done))
})

const status =
  (code: number, headers: Record<string, string> = {}, body = '{}'): Answer =>
  response =>
    void response.writeHead(code, headers).end(body)
const hang: Answer = () => undefined
const cutOff: Answer = response => void response.destroy()
const signal = () => new AbortController().signal
const limits = {
  backoffMs: 1,
  wait: async (ms: number) => {
    waited.push(ms)
  }
}

/** Sends as many notices to a receiver; gives the places that were taken and what went wrong. */
async function send(
  receiver: Receiver,
  count = 1,
  more: object = {},
  stop = signal()
): Promise<[number[], string | null]> {
  const taken: number[] = []
  const notices = Array.from({ length: count }, () => NOTICE)
  const failure = await new Notifier(receiver, { ...limits, ...more }).send(notices, stop, at => taken.push(at))
  return [taken, failure]
}

const toSlack = () => slack(`${base}/services/${SECRET}`)
/** What was sent last. */
const body = () => asked.at(-1)!.body as Record<string, unknown>

describe('what is sent', () => {
  it('to Slack: text that mentions nobody, and plain blocks', async () => {
    expect(await send(toSlack())).toEqual([[0], null])
    expect(asked[0]).toMatchObject({ method: 'POST', url: `/services/${SECRET}` })
    expect(asked[0]!.headers).toMatchObject({ 'content-type': 'application/json', 'user-agent': 'l3cap' })
    const plain = (text: string) => ({ type: 'plain_text', text, emoji: false })
    expect(body()).toEqual({
      text: '🔴 NEW okx BTC-USDT trades: the line is &lt;cut&gt; &amp; off (12 places)',
      blocks: [
        { type: 'section', text: plain(`🔴 NEW ${NOTICE.summary}`) },
        {
          type: 'section',
          text: plain('raw/a.jsonl:7: the line is <!channel> cut\nraw/a.jsonl: b\nc\nand 9 more')
        },
        { type: 'context', elements: [plain('torn_line since 2026-11-20T23:00:00.000Z; host:/vault')] }
      ]
    })
  })

  it('to Slack at the end: that it is over, and since when it was', async () => {
    await new Notifier(toSlack()).send([{ ...NOTICE, event: 'resolve' }], signal(), () => undefined)
    const { text, blocks } = body() as { text: string; blocks: { elements?: { text: string }[] }[] }
    expect(text).toMatch(/^🟢 OVER okx BTC-USDT/)
    expect(blocks).toHaveLength(2)
    expect(blocks[1]!.elements![0]!.text).toBe(
      'torn_line since 2026-11-20T23:00:00.000Z, over at 2026-11-20T23:01:00.000Z; host:/vault'
    )
  })

  it('to Slack: no text longer than it takes', async () => {
    const findings = Array.from({ length: 5 }, () => ({ ...NOTICE.findings[0]!, message: 'x'.repeat(2000) }))
    await new Notifier(toSlack()).send([{ ...NOTICE, summary: 'y'.repeat(9000), findings }], signal(), () => undefined)
    const { blocks } = body() as { blocks: { text?: { text: string } }[] }
    expect(blocks.map(({ text }) => text?.text.length)).toEqual([3000, 3000, undefined])
  })

  it.each(['trigger', 'update'] as const)('to PagerDuty: %s', async event => {
    const receiver = pagerDuty(KEY, `${base}/`)
    await new Notifier(receiver).send([{ ...NOTICE, event, summary: 'z'.repeat(2000) }], signal(), () => undefined)
    expect(asked[0]).toMatchObject({ method: 'POST', url: '/v2/enqueue' })
    expect(body()).toEqual({
      routing_key: KEY,
      event_action: 'trigger',
      dedup_key: NOTICE.key,
      client: 'l3cap',
      payload: {
        summary: `${'z'.repeat(1023)}…`,
        source: 'host',
        severity: 'error',
        timestamp: '2026-11-20T23:01:00.000Z',
        component: 'okx',
        group: '/vault',
        class: 'torn_line',
        custom_details: {
          since_utc: '2026-11-20T23:00:00.000Z',
          vault: '/vault',
          count: 12,
          files: NOTICE.files,
          findings: NOTICE.findings
        }
      }
    })
  })

  it('to PagerDuty: resolve, and a whole address is taken as well', async () => {
    const receiver = pagerDuty(KEY, `${base}/v2/enqueue`)
    await new Notifier(receiver).send([{ ...NOTICE, event: 'resolve' }], signal(), () => undefined)
    expect(asked[0]!.url).toBe('/v2/enqueue')
    expect(body()).toEqual({ routing_key: KEY, event_action: 'resolve', dedup_key: NOTICE.key })
  })

  it('to a webhook: the notice as it is', async () => {
    expect(await send(webhook(`${base}/hook?a=1`))).toEqual([[0], null])
    expect([asked[0]!.url, body()]).toEqual(['/hook?a=1', NOTICE])
  })

  it('in order, one after the other', async () => {
    let under = 0
    let most = 0
    const slow: Answer = response => {
      most = Math.max(most, ++under)
      setImmediate(() => {
        under--
        response.writeHead(200).end('ok')
      })
    }
    answers = [slow, slow, slow]
    expect(await send(toSlack(), 3)).toEqual([[0, 1, 2], null])
    expect(most).toBe(1)
  })
})

describe('answers', () => {
  it.each([200, 202, 204])('%i is taken', async code => {
    answers = [status(code)]
    expect(await send(toSlack())).toEqual([[0], null])
    expect(asked).toHaveLength(1)
  })

  it.each([301, 400, 403, 404, 410])('%i is final: not tried again, and the next is', async code => {
    answers = [status(code, { location: `${base}/else` })]
    expect(await send(toSlack(), 2)).toEqual([[1], `slack: status ${code}`])
    expect(asked).toHaveLength(2)
  })

  it('500 twice, then 200: taken at the third try', async () => {
    answers = [status(500), status(500), status(200)]
    expect(await send(toSlack())).toEqual([[0], null])
    expect(asked).toHaveLength(3)
  })

  it('500 for ever: five tries, and the rest is left out', async () => {
    answers = Array.from({ length: 20 }, () => status(500))
    expect(await send(toSlack(), 3)).toEqual([[], 'slack: status 500'])
    expect(asked).toHaveLength(5)
  })

  it.each([429, 503])('%i with seconds: waits so long, then again', async code => {
    answers = [status(code, { 'retry-after': '7' })]
    expect(await send(toSlack())).toEqual([[0], null])
    expect([waited, asked.length]).toEqual([[7000], 2])
  })

  it('429 with a date: waits until then', async () => {
    answers = [status(429, { 'retry-after': new Date(Date.now() + 20_000).toUTCString() })]
    expect(await send(toSlack())).toEqual([[0], null])
    expect(waited).toHaveLength(1)
    expect(waited[0]).toBeGreaterThan(10_000)
    expect(waited[0]).toBeLessThanOrEqual(20_000)
  })

  it('429 without a word on how long: tries again', async () => {
    answers = [status(429), status(429, { 'retry-after': 'soon' })]
    expect(await send(toSlack())).toEqual([[0], null])
    expect([waited, asked.length]).toEqual([[], 3])
  })

  it('429 for longer than there is time: not waited for, left alone instead', async () => {
    answers = [status(429, { 'retry-after': '600' })]
    const notifier = new Notifier(toSlack(), limits)
    expect(notifier.isReady).toBe(true)
    expect(await notifier.send([NOTICE, NOTICE], signal(), () => undefined)).toBe('slack: status 429')
    expect([waited, asked.length, notifier.isReady]).toEqual([[], 1, false])
  })

  it('the last try is not followed by a wait', async () => {
    answers = Array.from({ length: 5 }, () => status(429, { 'retry-after': '1' }))
    expect(await send(toSlack())).toEqual([[], 'slack: status 429'])
    expect([waited.length, asked.length]).toEqual([4, 5])
  })

  it('an endless answer is not read', async () => {
    const closed = new Promise<void>(done => {
      answers = [response => void response.on('close', done).writeHead(200).write('x'.repeat(100_000))]
    })
    expect(await send(toSlack())).toEqual([[0], null])
    await closed
  })

  it('one that hangs: each try ends, and all of them', async () => {
    answers = Array.from({ length: 20 }, () => hang)
    expect(await send(toSlack(), 2, { tryMs: 20, tries: 3 })).toEqual([[], 'slack: no answer within 0.02 s'])
    expect(asked).toHaveLength(3)
    expect(await send(toSlack(), 1, { tryMs: 60_000, sendMs: 50 })).toEqual([[], 'slack: not sent in time'])
  })

  it('one that closes the socket: again', async () => {
    answers = [cutOff, cutOff]
    expect(await send(toSlack())).toEqual([[0], null])
    expect(asked).toHaveLength(3)
  })

  it('one that is not there: named without its address', async () => {
    await new Promise(done => server.close(done))
    expect(await send(toSlack(), 1, { tries: 2 })).toEqual([[], 'slack: ECONNREFUSED'])
  })

  it('one that speaks something else: named without what it said', async () => {
    const garbage = createTcp(socket => void socket.resume().end('\u0000 no HTTP at all \r\n\r\n'))
    await new Promise<void>(done => garbage.listen(0, '127.0.0.1', done))
    const { port } = garbage.address() as AddressInfo
    const [taken, failure] = await send(slack(`http://127.0.0.1:${port}/${SECRET}`), 1, { tries: 2 })
    await new Promise(done => garbage.close(done))
    expect([taken, failure]).toEqual([[], expect.stringMatching(/^slack: (HPE_[A-Z_]+|ECONNRESET)$/)])
  })

  it.each(['', '0'])('one that cannot prove who it is: told nothing, NODE_TLS_REJECT_UNAUTHORIZED=%s', async value => {
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', value)
    let requests = 0
    const stranger = createHttps(CERTIFICATE, (_, response) => {
      requests++
      response.end()
    })
    await new Promise<void>(done => stranger.listen(0, '127.0.0.1', done))
    const { port } = stranger.address() as AddressInfo
    const [taken, failure] = await send(slack(`https://127.0.0.1:${port}/${SECRET}`), 1, { tries: 2 })
    await new Promise(done => stranger.close(done))
    vi.unstubAllEnvs()
    expect([taken, failure, requests]).toEqual([[], 'slack: DEPTH_ZERO_SELF_SIGNED_CERT', 0])
  })

  it('ends at once when it is told to', async () => {
    const stop = new AbortController()
    answers = [() => stop.abort()]
    expect(await send(toSlack(), 3, {}, stop.signal)).toEqual([[], 'slack: not sent in time'])
    expect(asked).toHaveLength(1)
  })

  it('is not asked twice at once', async () => {
    const notifier = new Notifier(toSlack(), limits)
    const sending = notifier.send([NOTICE], signal(), () => undefined)
    expect(notifier.isReady).toBe(false)
    await sending
    expect(notifier.isReady).toBe(true)
  })
})

describe('beat', () => {
  it('calls the address, without a body', async () => {
    expect(await beat(`${base}/ping/${SECRET}`, signal())).toBeNull()
    expect(asked[0]).toMatchObject({ method: 'GET', url: `/ping/${SECRET}`, body: null })
  })

  it('tries three times, and says what is wrong without saying where', async () => {
    answers = [status(500), status(500), status(503), status(200)]
    expect(await beat(`${base}/ping/${SECRET}`, signal(), limits)).toBe('heartbeat: status 503')
    expect(asked).toHaveLength(3)
  })
})

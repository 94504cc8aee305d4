import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Fetcher } from '../../src/wire/fetcher.ts'
import { retryAfterMs } from '../../src/wire/socket.ts'

let server: Server
let base: string
let answers: ((response: ServerResponse) => void)[]
let asked: { url: string; method: string; body: string; atMs: number }[]

beforeEach(async () => {
  answers = []
  asked = []
  server = createServer((request, response) => {
    const atMs = performance.now()
    let body = ''
    request.on('data', chunk => {
      body += String(chunk)
    })
    request.on('end', () => {
      asked.push({ url: request.url ?? '', method: request.method ?? '', body, atMs })
      const answer = answers.shift()
      if (answer) answer(response)
      else response.end('{"ok":true}')
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
})
afterEach(async () => {
  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
})

const status =
  (code: number, body = '{}', headers: Record<string, string> = {}) =>
  (response: ServerResponse) =>
    void response.writeHead(code, headers).end(body)
const signal = () => new AbortController().signal

describe('Fetcher', () => {
  it('gives the JSON at a path', async () => {
    expect(await new Fetcher(base, 10).json('/v2/conf?a=1', signal())).toEqual({ ok: true })
    expect(asked.map(({ url }) => url)).toEqual(['/v2/conf?a=1'])
  })

  it('tries again after a failure of the server, broken JSON or a cut connection', async () => {
    answers = [status(500), status(200, '{"ok":tr'), response => void response.destroy()]
    expect(await new Fetcher(base, 10).json('/x', signal(), 4)).toEqual({ ok: true })
    expect(asked).toHaveLength(4)
  })

  it.each([429, 418, 503])('after %i waits as long as it is told', async code => {
    answers = [status(code, '{}', { 'retry-after': '1' })]
    expect(await new Fetcher(base, 10).json('/x', signal())).toEqual({ ok: true })
    expect(asked).toHaveLength(2)
    expect(asked[1]!.atMs - asked[0]!.atMs).toBeGreaterThanOrEqual(990)
  })

  it('after 429 without a wish goes on soon', async () => {
    answers = [status(429, '["error",11010,"ratelimit: error"]', { 'retry-after': '0' })]
    expect(await new Fetcher(base, 10).json('/x', signal())).toEqual({ ok: true })
    expect(asked).toHaveLength(2)
  })

  it('gives up after so many tries, and says what was answered', async () => {
    answers = [status(500, 'first'), status(500, 'second'), status(200)]
    await expect(new Fetcher(base, 10).json('/x', signal(), 2)).rejects.toMatchObject({
      code: 'REST',
      message: expect.stringMatching(/GET http:.*\/x: status 500 second/)
    })
    expect(asked).toHaveLength(2)
  })

  it('does not repeat what is wrong for good', async () => {
    answers = [status(404, 'no such path')]
    await expect(new Fetcher(base, 10).json('/x', signal())).rejects.toMatchObject({
      code: 'REST',
      message: expect.stringContaining('status 404 no such path')
    })
    expect(asked).toHaveLength(1)
  })

  it('sends what a session asks for, and gives back whatever is answered', async () => {
    const fetcher = new Fetcher(base, 10)
    answers = [status(404, 'no'), status(200, 'yes')]
    expect(await fetcher.send({ path: '/a' }, signal())).toMatchObject({ status: 404, text: 'no' })
    expect(await fetcher.send({ path: '/b', post: { body: 'x=1', headers: {} } }, signal())).toMatchObject({
      status: 200,
      text: 'yes'
    })
    expect(asked.map(({ url, method, body }) => [method, url, body])).toEqual([
      ['GET', '/a', ''],
      ['POST', '/b', 'x=1']
    ])
    answers = [response => void response.destroy()]
    expect(await fetcher.send({ path: '/c' }, signal())).toMatchObject({ status: 0 })
  })

  it('after a refusal holds back every request to the host', async () => {
    const fetcher = new Fetcher(base, 10)
    answers = [status(429, '{}', { 'retry-after': '1' })]
    expect(await fetcher.send({ path: '/a' }, signal())).toMatchObject({ status: 429 })
    await Promise.all([fetcher.send({ path: '/b' }, signal()), fetcher.json('/c', signal())])
    for (const { atMs } of asked.slice(1)) expect(atMs - asked[0]!.atMs).toBeGreaterThanOrEqual(990)
  })

  it('ends at once when it is told to stop', async () => {
    const stopping = new AbortController()
    answers = [() => stopping.abort()]
    const began = performance.now()
    await expect(new Fetcher(base, 10).json('/x', stopping.signal)).rejects.toMatchObject({ code: 'REST' })
    expect(performance.now() - began).toBeLessThan(1000)
    expect(asked).toHaveLength(1)
  })
})

describe('retryAfterMs', () => {
  const now = Date.UTC(2026, 10, 20, 10)
  it.each([
    [undefined, 0],
    [null, 0],
    ['', 0],
    ['0', 0],
    ['7', 7000],
    ['Fri, 20 Nov 2026 10:00:30 GMT', 30_000],
    ['Fri, 20 Nov 2026 09:00:00 GMT', 0],
    ['soon', 0]
  ])('%j', (header, ms) => {
    expect(retryAfterMs(header, now)).toBe(ms)
  })
})

import { beforeEach, expect, it } from 'vitest'
import type { Exchange, Host, Session } from '../../src/exchanges/exchange.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { Driver, type Row } from '../helpers/driver.ts'
import { ASKS, BIDS, OkxPeer } from '../helpers/peers.ts'

// A session that fails where it is told to, as one with a mistake in it would.

type Part = 'onOpen' | 'read' | 'apply' | 'onTick' | 'resync'
let failing: Part | undefined

const faulty: Exchange = {
  ...okx,
  open: (host: Host): Session => {
    const session = okx.open(host)
    return new Proxy(session, {
      get: (target, name: keyof Session) => {
        if (name === failing) {
          return () => {
            throw new TypeError(`a mistake in ${name}`)
          }
        }
        const value: unknown = target[name]
        return typeof value === 'function' ? value.bind(target) : value
      }
    })
  }
}

let driver: Driver
let peer: OkxPeer
beforeEach(() => {
  failing = undefined
  driver = new Driver(faulty)
})

function goLive(): void {
  driver.open('a', ['BTC-USDT', 'ETH-USDT'], 'l2')
  peer = new OkxPeer(driver, 'a')
  peer.answer()
  peer.image(BIDS, ASKS)
  peer.image(BIDS, ASKS, 'ETH-USDT')
}

it.each([
  ['read', () => driver.in('a', peer.next(BIDS, []))],
  ['apply', () => driver.in('a', peer.next(BIDS, []))],
  ['onTick', () => driver.tick('a')],
  // The number after the next one: the book asks for another image.
  ['resync', () => driver.in('a', peer.frame('update', BIDS, [], { prevSeqId: 7, seqId: 9 }))],
  ['resync', () => driver.engine.skip(driver.us + 1, 'a', 1000, 3)]
] as const)('in %s: a gap of the connection, and another connection', (part, act) => {
  goLive()
  failing = part
  expect(act).not.toThrow()
  expect(driver.requests.hangups).toEqual([{ connection: 'a', reason: 'assertion failed' }])
  for (const instId of ['BTC-USDT', 'ETH-USDT']) {
    const gaps = driver.sink.statuses('gap', instId).filter(({ detail }) => (detail as Row).channel === undefined)
    expect(gaps).toHaveLength(1)
  }
  expect(driver.requests.logs.find(({ message }) => message === 'Assertion failed in a session')).toMatchObject({
    level: 'error',
    facts: { error: expect.stringContaining(`a mistake in ${part}`) }
  })
  failing = undefined
  driver.close('a', 'lost', 1006)
  goLive()
  expect(driver.sink.statuses('synced', 'BTC-USDT')).toHaveLength(2)
})

it('a frame that nobody can read is kept as text', () => {
  goLive()
  failing = 'read'
  expect(driver.in('a', peer.next(BIDS, []))).toBe('text')
})

it('in onOpen: another connection', () => {
  failing = 'onOpen'
  expect(() => driver.open('a', ['BTC-USDT'], 'l2')).not.toThrow()
  expect(driver.requests.hangups).toEqual([{ connection: 'a', reason: 'assertion failed' }])
})

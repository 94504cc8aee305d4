import { expect, it } from 'vitest'
import { bitfinex } from '../../src/exchanges/bitfinex.ts'
import { Driver } from '../helpers/driver.ts'
import { BitfinexPeer, ORDERS } from '../helpers/peers.ts'

const NAMES = ['BTCUSD', 'ETHUSD', 'XRPUSD']

it('a limit that shrinks while running costs those it shuts out, who are named and asked for again without haste', () => {
  const driver = new Driver(bitfinex)
  driver.open('a', NAMES, 'l3')
  const peer = new BitfinexPeer(driver, 'a')
  peer.answer()
  for (const name of NAMES) peer.image(ORDERS, `t${name}`)
  // A lost number: everything is left and asked for again, and there is no room for all any more.
  peer.sequence++
  peer.beat('book', 'tBTCUSD')
  const shutOut = (request: Record<string, unknown>) => request.channel === 'book' && request.symbol === 'tXRPUSD'
  let asked = 0
  let isFull = true
  const answer = () => {
    for (let batch = peer.requests(); batch.length > 0; batch = peer.requests()) {
      for (const request of batch) {
        const { event, channel, symbol, prec } = request
        if (event === 'subscribe' && shutOut(request)) asked++
        if (event === 'subscribe' && shutOut(request) && isFull)
          peer.event({ event: 'error', channel, symbol, prec, code: 10305, msg: 'subscribe: limit' })
        else peer.reply(request)
      }
    }
  }
  answer()
  for (const name of ['BTCUSD', 'ETHUSD']) peer.image(ORDERS, `t${name}`)
  const pass = (seconds: number) => {
    for (let left = seconds; left > 0; left -= 10) {
      driver.pass('a', 10_000)
      for (const name of ['BTCUSD', 'ETHUSD']) peer.beat('book', `t${name}`)
      for (const name of NAMES) peer.beat('trades', `t${name}`)
      answer()
    }
  }
  pass(600)
  // Once a minute.
  expect(asked).toBeGreaterThanOrEqual(9)
  expect(asked).toBeLessThanOrEqual(11)
  expect(driver.sink.statuses('refused', 'XRPUSD')).toHaveLength(asked)
  expect(driver.requests.logs.filter(({ message }) => message === 'Subscription refused')).toHaveLength(asked)
  expect(driver.requests.hangups).toEqual([])
  for (const name of ['BTCUSD', 'ETHUSD']) {
    expect(driver.sink.statuses('gap', name)).toHaveLength(1)
    expect(driver.sink.statuses('synced', name)).toHaveLength(2)
    expect(driver.sink.statuses('refused', name)).toEqual([])
  }
  isFull = false
  pass(70)
  peer.image(ORDERS, 'tXRPUSD')
  expect(driver.sink.statuses('synced', 'XRPUSD')).toHaveLength(2)
})

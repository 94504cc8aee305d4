import fc from 'fast-check'
import { expect, it } from 'vitest'
import { bitfinex } from '../../src/exchanges/bitfinex.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { Driver, type Row } from '../helpers/driver.ts'
import { BitfinexPeer, type LevelText, OkxPeer, type OrderText } from '../helpers/peers.ts'

/** What happens next: a change of the market, something that befalls the next frame, an answer, time. */
type Step = { change: number; size: number } | 'drop' | 'double' | 'swap' | 'beat' | 'answer' | 'tick'

const STEP: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ change: fc.nat(11), size: fc.nat(9) }) },
  { weight: 1, arbitrary: fc.constantFrom('drop' as const, 'double' as const, 'swap' as const) },
  { weight: 2, arbitrary: fc.constant('beat' as const) },
  { weight: 3, arbitrary: fc.constant('answer' as const) },
  { weight: 5, arbitrary: fc.constant('tick' as const) }
)
const STEPS = fc.array(STEP, { minLength: 20, maxLength: 200 })

/** A line to the capture that loses, doubles and swaps frames when it is told to. */
class Line {
  fault: 'drop' | 'double' | 'swap' | undefined
  private readonly driver: Driver
  private held: string | undefined

  constructor(driver: Driver) {
    this.driver = driver
  }

  deliver(text: string): void {
    const { fault, held } = this
    this.fault = undefined
    if (fault === 'drop') return
    if (fault === 'swap' && held === undefined) {
      this.held = text
      return
    }
    this.held = undefined
    this.driver.in('a', text)
    if (fault === 'double') this.driver.in('a', text)
    if (held !== undefined) this.driver.in('a', held)
  }
}

/** Every snapshot, flagged or not, must be the true book of its number. */
function judge(driver: Driver, truth: ReadonlyMap<number, string>): void {
  const shots = driver.sink.lines.filter(({ feed }) => feed === 'l3_spot' || feed === 'l2_spot')
  for (const { text } of shots) {
    const row = JSON.parse(text) as Row
    const shown = JSON.stringify([row.bids_top400, row.asks_top400])
    expect(shown, `number ${row.seqId}, flagged ${row.gap_detected}`).toBe(truth.get(Number(row.seqId)))
  }
}

/** Levels best first, as snapshots show them, of rows `[price, size, orders]`; prices are whole numbers here. */
function levels(rows: [string, string, string][], isAsk: boolean): string[][] {
  const better = isAsk ? 1 : -1
  return rows.sort((a, b) => (Number(a[0]) - Number(b[0])) * better).map(([price, size, n]) => [price, size, '0', n])
}

function playBitfinex(steps: readonly Step[]): Driver {
  const driver = new Driver(bitfinex)
  driver.open('a', ['BTCUSD'], 'l3')
  const peer = new BitfinexPeer(driver, 'a')
  const line = new Line(driver)
  const truth = new Map<number, string>()
  const market = new Map<number, OrderText>()
  let imaged = -1
  const note = () => {
    const side = (isAsk: boolean) =>
      levels(
        [...market.values()]
          .filter(([, , amount]) => amount.startsWith('-') === isAsk)
          .map(([, price, amount]) => [price, amount.replace('-', ''), '1']),
        isAsk
      )
    truth.set(peer.sequence, JSON.stringify([side(false), side(true)]))
  }
  const say = (payload: string) => {
    const text = peer.frame(peer.channel(), payload)
    note()
    line.deliver(text)
  }
  const answer = () => {
    peer.answer()
    if (peer.channel() === imaged) return
    imaged = peer.channel()
    say(`[${[...market.values()].map(order => `[${order.join(',')}]`).join(',')}]`)
  }
  answer()
  for (const step of steps) {
    if (step === 'tick') driver.pass('a', 2000)
    else if (step === 'answer') answer()
    else if (step === 'beat') say('"hb"')
    else if (typeof step === 'string') line.fault = step
    else {
      // Orders 0 to 5 are bids of a price each, the others asks.
      const { change: id, size } = step
      const sign = id < 6 ? '' : '-'
      if (size === 0) market.delete(id)
      else market.set(id, [id, String(100 + id), `${sign}${size}`])
      say(size === 0 ? `[${id},0,${sign}1]` : `[${id},${100 + id},${sign}${size}]`)
    }
  }
  judge(driver, truth)
  return driver
}

function playOkx(steps: readonly Step[]): Driver {
  const driver = new Driver(okx)
  driver.open('a', ['BTC-USDT'], 'l2')
  const peer = new OkxPeer(driver, 'a')
  const line = new Line(driver)
  const truth = new Map<number, string>()
  const market = new Map<number, string>()
  let asked = 0
  const rows = (isAsk: boolean) =>
    [...market]
      .filter(([id]) => id >= 6 === isAsk)
      .map(([id, size]): [string, string, string] => [String(100 + id), size, '1'])
  const note = () => {
    truth.set(peer.numbers.get('BTC-USDT')!, JSON.stringify([levels(rows(false), false), levels(rows(true), true)]))
  }
  const answer = () => {
    peer.answer()
    const now = driver.sent.filter(({ text }) => text.includes('"subscribe"') && text.includes('"books"')).length
    if (now === asked) return
    asked = now
    const seqId = (peer.numbers.get('BTC-USDT') ?? 1000) + 1
    peer.numbers.set('BTC-USDT', seqId)
    note()
    line.deliver(peer.frame('snapshot', rows(false), rows(true), { prevSeqId: -1, seqId }))
  }
  answer()
  for (const step of steps) {
    if (step === 'tick') driver.pass('a', 2000)
    else if (step === 'answer') answer()
    else if (step === 'beat') line.deliver(peer.next([], [], 'BTC-USDT', 0))
    else if (typeof step === 'string') line.fault = step
    else {
      const { change: id, size } = step
      if (size === 0) market.delete(id)
      else market.set(id, String(size))
      const level: LevelText = [String(100 + id), String(size), size === 0 ? '0' : '1']
      const text = peer.next(id < 6 ? [level] : [], id < 6 ? [] : [level])
      note()
      line.deliver(text)
    }
  }
  judge(driver, truth)
  return driver
}

it.each([
  ['bitfinex', playBitfinex],
  ['okx', playOkx]
])('%s: whatever is lost, doubled or swapped, no snapshot shows a book that never was', (_, play) => {
  let shots = 0
  let gaps = 0
  fc.assert(
    fc.property(STEPS, steps => {
      const driver = play(steps)
      shots += driver.sink.lines.filter(({ feed }) => feed.endsWith('_spot')).length
      gaps += driver.sink.statuses('gap').length
      for (const { message } of driver.requests.logs) expect(message).not.toContain('Assertion')
    }),
    { numRuns: 200 }
  )
  // The property holds of nothing at all: there must have been books and losses.
  expect(shots).toBeGreaterThan(1000)
  expect(gaps).toBeGreaterThan(50)
})

import { beforeEach, expect, it } from 'vitest'
import { okx } from '../../src/exchanges/okx.ts'
import { type Subscription, Subscriptions } from '../../src/exchanges/subscriptions.ts'
import { StubHost } from '../helpers/host.ts'

let host: StubHost
let subscriptions: Subscriptions
let asked: string[][]

beforeEach(() => {
  host = new StubHost()
  asked = []
  subscriptions = new Subscriptions(
    host,
    okx.limits,
    batch => void asked.push(batch.map(({ kind }) => kind)),
    () => undefined
  )
})

/** Lets time pass with a tick each second. */
function pass(seconds: number): void {
  for (let n = 0; n < seconds; n++) {
    host.pass(1)
    subscriptions.tick(() => Number.POSITIVE_INFINITY)
  }
}
const refuse = (subscription: Subscription, final: boolean) => subscriptions.refuse(subscription, final, { code: 'x' })

it('asks for everything at once, and once', () => {
  subscriptions.start()
  subscriptions.start()
  expect(asked).toEqual([['book', 'trades']])
})

it.each([
  ['for now', false, 60],
  ['for good', true, 600]
])('what is refused %s is asked for again', (_, final, seconds) => {
  subscriptions.start()
  const trades = subscriptions.of(0, 'trades')
  const book = subscriptions.of(0, 'book')
  refuse(trades, final)
  subscriptions.acked(book, null)
  subscriptions.data(book)
  subscriptions.imagesApart = true
  pass(seconds - 1)
  expect(asked).toHaveLength(1)
  expect(subscriptions.refused(0)).toBe(false)
  pass(3)
  expect(asked.slice(1)).toEqual([['trades']])
  expect(host.statuses.filter(({ event }) => event === 'refused')).toMatchObject([{ detail: { final } }])
})

it('knows which book was refused for good', () => {
  subscriptions.start()
  refuse(subscriptions.of(0, 'book'), true)
  expect(subscriptions.refused(0)).toBe(true)
})

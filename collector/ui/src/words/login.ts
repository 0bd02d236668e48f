/** What the login says. */
import type { Language } from ".";

const en = {
  name: "Name",
  password: "Password",
  signIn: "Sign in",
  byToken: "With a token",
  token: "Access token",
  tokenPlace: "The demo prints its token when it starts. Otherwise it is in the file api-token in the collector's data folder.",
  wrong: "This is not known here. Check that all of it is right.",
  unreachable: "The collector can't be reached.",
  first: "First start: make the administrator",
  code: "Code",
  codePlace: "The collector has written it to the file first-admin-code in its data folder.",
  makeAdmin: "Make the administrator",
};

export const loginWords: Record<Language, typeof en> = {
  en,
  ka: {
    name: "სახელი",
    password: "პაროლი",
    signIn: "შესვლა",
    byToken: "ტოკენით შესვლა",
    token: "წვდომის ტოკენი",
    tokenPlace: "დემო ტოკენს გაშვებისას ბეჭდავს. სხვა შემთხვევაში ის კოლექტორის საქაღალდეშია, ფაილში api-token.",
    wrong: "ასეთი აქ არ არის. შეამოწმეთ, სწორია თუ არა ყველაფერი.",
    unreachable: "კოლექტორთან დაკავშირება ვერ ხერხდება.",
    first: "პირველი გაშვება: ადმინისტრატორის შექმნა",
    code: "კოდი",
    codePlace: "კოდი კოლექტორის საქაღალდეშია, ფაილში first-admin-code.",
    makeAdmin: "ადმინისტრატორის შექმნა",
  },
};

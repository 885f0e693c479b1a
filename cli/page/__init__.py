"""`./lab page`: reads a lab and writes its page. What is on the page, and how it looks, is in the folder `page`."""
